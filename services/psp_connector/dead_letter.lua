#!lua flags=allow-oom
-- Moves an unreadable entry to the dead letters. Its transaction, if open, fails: otherwise it
-- would stay open with no queue entry to finish it.
--
-- KEYS  1 queue   2 deadletters   3 transaction:{id}   (only when the entry names one)
-- ARGV  1 group   2 entry of the queue   3 transaction id or ''   4 reason   5 the entry, truncated
--       6 now, RFC 3339   7 stream id below which dead letters are trimmed
--       8 event for the timeline   9 lifetime of the record, seconds
-- Returns  1, or 0 if another connector has handled it
check_types('stream', 'stream')
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[7], '*',
  'transaction_id', ARGV[3], 'reason', ARGV[4], 'entry', ARGV[5], 'at', ARGV[6])
local record = KEYS[3] and redis.pcall('HMGET', KEYS[3], 'status', 'timeline') or {}
if record[1] == 'queued' or record[1] == 'processing' then
  redis.call('HSET', KEYS[3], 'status', 'failed', 'updated_at', ARGV[6],
    'timeline', (record[2] and record[2] .. ', ' or '') .. ARGV[8])
  redis.call('EXPIRE', KEYS[3], ARGV[9])
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
