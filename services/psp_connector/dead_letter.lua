#!lua flags=allow-oom
-- Moves an unreadable entry to the dead letters. Its transaction, if open, fails: otherwise it
-- would stay open with no queue entry to finish it.
--
-- If the entry names no transaction, that key is left out and the id is ''. `entry` is the text of the
-- entry, truncated; `letters_oldest` the id below which dead letters are trimmed.
--
-- Returns  1, or 0 if another connector has handled it
local queue, deadletters, transaction = unpack(KEYS)
local group, entry_id, transaction_id, reason, entry, now, letters_oldest, event,
  lifetime_seconds = unpack(ARGV)
check_keys({'stream', 'XACK', 'XDEL'}, {'stream', 'XADD'}, {false, 'HSET', 'EXPIRE'})
if #redis.call('XPENDING', queue, group, entry_id, entry_id, 1) == 0 then
  return 0
end
local record = transaction and call_on_edited('HMGET', transaction, 'status', 'timeline') or {}
redis.call('XADD', deadletters, 'MINID', '~', letters_oldest, '*',
  'transaction_id', transaction_id, 'reason', reason, 'entry', entry, 'at', now)
if is_open(record[1]) then
  redis.call('HSET', transaction, 'status', 'failed', 'updated_at', now,
    'timeline', extended(record[2], event))
  redis.call('EXPIRE', transaction, lifetime_seconds)
end
acknowledge(queue, group, entry_id)
return 1
