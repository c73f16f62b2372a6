#!lua flags=allow-oom
-- Puts transactions whose next attempt is due back into the queue. The record's `entry` names the
-- new entry, so that it can be taken away when the transaction ends in another way.
--
-- KEYS  1 retries   2 queue
-- ARGV  1 now, ms   2 how many at the most   3 later than this none can be due, ms
-- Returns  how many
check_types('zset', 'stream')
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local misled = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[2] - #due)
for _, id in ipairs(misled) do
  due[#due + 1] = id
end
for _, id in ipairs(due) do
  local key = 'transaction:' .. id
  -- Written by hand it may be no hash, or name none: the reader of the entry finds out.
  local record = redis.pcall('HMGET', key, 'status', 'request_id', 'user_id')
  local entry = redis.call('XADD', KEYS[2], '*', 'transaction_id', id,
    'request_id', record[2] or '', 'user_id', record[3] or '')
  if record[1] then
    redis.call('HSET', key, 'entry', entry)
  end
  redis.call('ZREM', KEYS[1], id)
end
return #due
