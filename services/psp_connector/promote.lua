#!lua flags=allow-oom
-- Puts transactions whose next attempt is due back into the queue.
--
-- KEYS  1 retries   2 queue
-- ARGV  1 now, ms   2 how many at the most
-- Returns  how many
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  local request_id = redis.call('HGET', 'transaction:' .. id, 'request_id') or ''
  redis.call('XADD', KEYS[2], '*', 'transaction_id', id, 'request_id', request_id)
end
return #due
