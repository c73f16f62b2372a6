#!lua flags=allow-oom
-- Moves up to count_max due transactions back into the queue, also those due after latest_ms, the
-- latest possible time.
--
-- Returns  the count
local retries, queue = unpack(KEYS)
local now_ms, count_max, latest_ms, record_prefix = unpack(ARGV)
check_keys({'zset', 'ZREM'}, {'stream', 'XADD'})
local due = redis.call('ZRANGEBYSCORE', retries, '-inf', now_ms, 'LIMIT', 0, count_max)
local misdated = redis.call('ZRANGEBYSCORE', retries, '(' .. latest_ms, '+inf', 'LIMIT', 0, count_max - #due)
for _, id in ipairs(misdated) do
  due[#due + 1] = id
end
if due[1] then
  check_permissions(record_prefix .. due[1], 'HSET')
end
for _, id in ipairs(due) do
  requeue(queue, record_prefix .. id, id)
  redis.call('ZREM', retries, id)
end
return #due
