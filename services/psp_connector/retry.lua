#!lua flags=allow-oom
-- Schedules a transaction's next attempt. Only for the connector that holds the entry: otherwise
-- another one has reclaimed it.
--
-- KEYS  1 transaction:{id}   2 queue   3 retries
-- ARGV  1 id   2 group   3 entry of the queue   4 connector   5 now, RFC 3339
--       6 event for the timeline   7 due time, ms
-- Returns  'done', 'taken' if another connector holds the entry, 'final' if it was final already,
--          'missing' if there is no record, or its status is none: its entry stays, for begin.lua
--          to report
local transaction, queue, retries = unpack(KEYS)
local id, group, entry_id, connector, now, event, due_ms = unpack(ARGV)
check_types('hash', 'stream', 'zset')
if #redis.call('XPENDING', queue, group, entry_id, entry_id, 1, connector) == 0 then
  return 'taken'
end
local record = redis.call('HMGET', transaction, 'status', 'timeline')
local outcomes = {processing = 'done', queued = 'final', captured = 'final', declined = 'final',
  failed = 'final'}
local outcome = outcomes[record[1] or '']
if not outcome then
  return 'missing'
end
if outcome == 'done' then
  redis.call('HSET', transaction, 'status', 'queued', 'updated_at', now,
    'timeline', (record[2] and record[2] .. ', ' or '') .. event)
  redis.call('ZADD', retries, due_ms, id)
end
redis.call('XACK', queue, group, entry_id)
redis.call('XDEL', queue, entry_id)
return outcome
