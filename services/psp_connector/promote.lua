#!lua flags=allow-oom
-- Puts transactions whose next attempt is due back into the queue. The record's `entry` names the
-- new entry, so that it can be taken away when the transaction ends in another way.
--
-- KEYS  1 retries   2 queue
-- ARGV  1 now, ms   2 how many at the most   3 later than this none can be due, ms
-- Returns  how many
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local misled = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[2] - #due)
for _, id in ipairs(misled) do
  due[#due + 1] = id
end
for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  local key = 'transaction:' .. id
  -- What somebody wrote by hand may be no hash, or name none: the reader of the entry finds out.
  local request_id = redis.pcall('HGET', key, 'request_id')
  local known = type(request_id) == 'string'
  local entry = redis.call('XADD', KEYS[2], '*',
    'transaction_id', id, 'request_id', known and request_id or '')
  if known then
    redis.call('HSET', key, 'entry', entry)
  end
end
return #due
