#!lua flags=allow-oom
-- Schedules a transaction's next attempt. Only for the connector that holds the entry: otherwise
-- another one has reclaimed it.
--
-- KEYS  1 transaction:{id}   2 queue   3 retries
-- ARGV  1 id   2 group   3 entry of the queue   4 connector   5 now, RFC 3339
--       6 event for the timeline   7 due time, ms
-- Returns  'done', 'taken' if another connector holds the entry, 'final' if it was final already
check_types('hash', 'stream', 'zset')
if #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1, ARGV[4]) == 0 then
  return 'taken'
end
local record = redis.call('HMGET', KEYS[1], 'status', 'timeline')
local is_open = record[1] == 'processing'
if is_open then
  redis.call('HSET', KEYS[1], 'status', 'queued', 'updated_at', ARGV[5],
    'timeline', (record[2] and record[2] .. ', ' or '') .. ARGV[6])
  redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1])
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
return is_open and 'done' or 'final'
