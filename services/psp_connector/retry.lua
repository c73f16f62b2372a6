#!lua flags=allow-oom
-- Schedules a transaction's next attempt. Only for the connector that holds the entry: otherwise
-- another one has reclaimed it.
--
-- unseen is the attempt's number if no PSP has seen it or an earlier one, so that the next may be made
-- anywhere and at any time, else ''.
--
-- Returns  'done', 'taken' if another connector holds the entry, 'final' if it was final already,
--          'missing' if there is no record, or its status is unknown: its entry stays, for begin.lua
--          to report
local transaction, queue, retries = unpack(KEYS)
local id, group, entry_id, connector, now, event, due_ms, unseen = unpack(ARGV)
check_keys({'hash', 'HSET', 'HDEL', 'HEXISTS'}, {'stream', 'XACK', 'XDEL'}, {'zset', 'ZADD'})
if #redis.call('XPENDING', queue, group, entry_id, entry_id, 1, connector) == 0 then
  return 'taken'
end
local record = redis.call('HMGET', transaction, 'status', 'timeline', 'attempts')
local outcomes = {processing = 'done', queued = 'final', captured = 'final', declined = 'final',
  failed = 'final'}
local outcome = outcomes[record[1] or '']
if not outcome then
  return 'missing'
end
if outcome == 'done' then
  redis.call('HSET', transaction, 'status', 'queued', 'updated_at', now,
    'timeline', extended(record[2], event))
  if unseen == record[3] then -- else a later attempt has begun
    redis.call('HDEL', transaction, 'psp')
    if redis.call('HEXISTS', transaction, 'attempted_at') == 1 then
      redis.call('HSET', transaction, 'attempted_at', '')
    end
  end
  redis.call('ZADD', retries, due_ms, id)
end
acknowledge(queue, group, entry_id)
return outcome
