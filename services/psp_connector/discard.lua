#!lua flags=allow-oom
-- Moves an entry that cannot be worked on to the dead letters.
--
-- KEYS  1 queue   2 deadletters
-- ARGV  1 group   2 entry of the queue   3 transaction id or ''   4 reason   5 the entry, cut short
--       6 now, RFC 3339   7 dead letters below this stream id are forgotten
-- Returns  1, or 0 when somebody else has dealt with it
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[7], '*',
  'transaction_id', ARGV[3], 'reason', ARGV[4], 'entry', ARGV[5], 'at', ARGV[6])
return 1
