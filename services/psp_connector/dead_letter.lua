#!lua flags=allow-oom
-- Moves an unreadable entry to the dead letters. Its transaction, if open, fails: otherwise it
-- would stay open with no queue entry to finish it.
--
-- KEYS  1 queue   2 deadletters   3 transaction:{id}   (only when the entry names one)
-- ARGV  1 group   2 entry of the queue   3 transaction id or ''   4 reason   5 the entry, truncated
--       6 now, RFC 3339   7 stream id below which dead letters are trimmed
--       8 event for the timeline   9 lifetime of the record, seconds
-- Returns  1, or 0 if another connector has handled it
local queue, deadletters, transaction = unpack(KEYS)
local group, entry_id, transaction_id, reason, entry, now, letters_oldest, event,
  lifetime_seconds = unpack(ARGV)
check_types('stream', 'stream')
if #redis.call('XPENDING', queue, group, entry_id, entry_id, 1) == 0 then
  return 0
end
redis.call('XADD', deadletters, 'MINID', '~', letters_oldest, '*',
  'transaction_id', transaction_id, 'reason', reason, 'entry', entry, 'at', now)
local record = transaction and redis.pcall('HMGET', transaction, 'status', 'timeline') or {}
if record[1] == 'queued' or record[1] == 'processing' then
  redis.call('HSET', transaction, 'status', 'failed', 'updated_at', now,
    'timeline', (record[2] and record[2] .. ', ' or '') .. event)
  redis.call('EXPIRE', transaction, lifetime_seconds)
end
redis.call('XACK', queue, group, entry_id)
redis.call('XDEL', queue, entry_id)
return 1
