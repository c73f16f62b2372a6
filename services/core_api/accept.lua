#!lua
-- Accepts a transaction: writes its record, the user's index, the queue entry and the response for
-- the Idempotency-Key atomically. The first line has no flags, so a full or read-only Redis refuses
-- the script before its first write.
--
-- KEYS  1 transaction:{id}     2 user:{id}:transactions   3 queue   4 retries
--       5 user:{id}:idempotency:{key}   (only when the client sent a key)
-- ARGV  1 id   2 user id   3 amount   4 currency   5 payment method   6 now, RFC 3339
--       7 member of the index   8 first event of the timeline   9 request id   10 queue limit
--       and with a key: 11 fingerprint of the request   12 the response, JSON   13 lifetime, seconds
-- Returns  {'accepted', ''}  {'replayed', the first response}  {'mismatch', ''}  {'full', ''}
check_types('hash', 'zset', 'stream', 'zset', 'hash')

-- A client that lost its connection may repeat the call: already accepted.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'accepted', ''}
end

if KEYS[5] then
  local first = redis.call('HMGET', KEYS[5], 'fingerprint', 'answer')
  if first[1] then
    if first[1] ~= ARGV[11] then
      return {'mismatch', ''}
    end
    return {'replayed', first[2]}
  end
end

if redis.call('XLEN', KEYS[3]) + redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[10]) then
  return {'full', ''}
end

local entry = redis.call('XADD', KEYS[3], '*',
  'transaction_id', ARGV[1], 'request_id', ARGV[9], 'user_id', ARGV[2])
redis.call('HSET', KEYS[1],
  'id', ARGV[1], 'user_id', ARGV[2], 'amount', ARGV[3], 'currency', ARGV[4],
  'payment_method', ARGV[5], 'status', 'queued', 'created_at', ARGV[6], 'updated_at', ARGV[6],
  'attempts', '0', 'timeline', ARGV[8], 'request_id', ARGV[9], 'entry', entry)
redis.call('ZADD', KEYS[2], 0, ARGV[7])
if KEYS[5] then
  redis.call('HSET', KEYS[5], 'fingerprint', ARGV[11], 'answer', ARGV[12])
  redis.call('EXPIRE', KEYS[5], ARGV[13])
end
return {'accepted', ''}
