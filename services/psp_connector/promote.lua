#!lua flags=allow-oom
-- Moves up to count_max due transactions back into the queue, also those due after latest_ms, the
-- latest possible time. The record's `entry` names the new entry, so that it can be removed if the
-- transaction is finished by another attempt.
--
-- Returns  the count
local retries, queue = unpack(KEYS)
local now_ms, count_max, latest_ms, record_prefix = unpack(ARGV)
check_types('zset', 'stream')
local due = redis.call('ZRANGEBYSCORE', retries, '-inf', now_ms, 'LIMIT', 0, count_max)
local misled = redis.call('ZRANGEBYSCORE', retries, '(' .. latest_ms, '+inf', 'LIMIT', 0, count_max - #due)
for _, id in ipairs(misled) do
  due[#due + 1] = id
end
for _, id in ipairs(due) do
  local key = record_prefix .. id
  -- pcall: edited by hand, it may be no hash; begin.lua reports that.
  local record = redis.pcall('HMGET', key, 'status', 'request_id', 'user_id', 'traceparent')
  local entry = redis.call('XADD', queue, '*', 'transaction_id', id,
    'request_id', record[2] or '', 'user_id', record[3] or '',
    'traceparent', record[4] or '')
  if record[1] then
    redis.call('HSET', key, 'entry', entry)
  end
  redis.call('ZREM', retries, id)
end
return #due
