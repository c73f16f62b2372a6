#!lua flags=allow-oom
-- Puts a transaction aside until its next attempt. Only the connector that holds the entry may:
-- another one has taken over from a connector that was thought dead.
--
-- KEYS  1 transaction:{id}   2 queue   3 retries
-- ARGV  1 id   2 group   3 entry of the queue   4 connector   5 now, RFC 3339
--       6 event for the timeline   7 when it is due, ms
-- Returns  'done', 'taken' when the entry is another connector's, 'final' when it had ended
if #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1, ARGV[4]) == 0 then
  return 'taken'
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
if redis.call('HGET', KEYS[1], 'status') ~= 'processing' then
  return 'final'
end
local timeline = redis.call('HGET', KEYS[1], 'timeline') .. ', ' .. ARGV[6]
redis.call('HSET', KEYS[1], 'status', 'queued', 'updated_at', ARGV[5], 'timeline', timeline)
redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1])
return 'done'
