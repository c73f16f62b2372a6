#!lua
-- The writes of a job: those that finish a captured transaction, without those of our own queue.
--
-- KEYS  1 transaction:{id}   2 user:{id}:points   3 user:{id}:ledger
-- ARGV  1 now, RFC 3339   2 event for the timeline   3 PSP reference   4 points
--       5 entry for the ledger   6 lifetime of the record, seconds
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'processing' then
  return 'final'
end
local timeline = redis.call('HGET', KEYS[1], 'timeline') .. ', ' .. ARGV[2]
redis.call('HSET', KEYS[1], 'status', 'captured', 'updated_at', ARGV[1], 'timeline', timeline,
  'psp_reference', ARGV[3], 'loyalty_points', ARGV[4])
redis.call('INCRBY', KEYS[2], ARGV[4])
redis.call('RPUSH', KEYS[3], ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
return 'done'
