#!lua
-- Accepts a transaction: writes its record, the user's index, the queue entry and the response for
-- the Idempotency-Key atomically. The first line has no flags, so a full or read-only Redis refuses
-- the script before its first write.
--
-- KEYS  1 transaction:{id}     2 user:{id}:transactions   3 queue   4 retries
--       5 user:{id}:idempotency:{key}   (only when the client sent a key)
-- ARGV  1 id   2 user id   3 member of the index   4 request id   5 queue limit
--       6 traceparent or ''
--       7 fingerprint of the request   8 the response   9 lifetime, seconds   (used with a key only)
--       10 and on: names and values of the transaction's fields
-- A repeated call writes again, so that the WAIT after it covers the first call's writes.
-- Returns  {'accepted', ''}  {'replayed', the first response}  {'mismatch', ''}; the error FULL (an
-- error, because after a lost reply the earlier call may yet arrive: see scripts.UnsureError)
local transaction, index, queue, retries, idempotency = unpack(KEYS)
local id, user_id, member, request_id, queue_limit, traceparent, fingerprint, response,
  lifetime_seconds = unpack(ARGV)
check_keys({'hash', 'HSET'}, {'zset', 'ZADD'}, {'stream', 'XADD'}, {'zset'}, {'hash', 'HSET', 'EXPIRE'})

-- A client that lost its connection may repeat the call.
if redis.call('EXISTS', transaction) == 1 then
  redis.call('HSET', transaction, 'request_id', request_id)
  return {'accepted', ''}
end

if idempotency then
  local first = redis.call('HMGET', idempotency, 'fingerprint', 'answer')
  if first[1] then
    if first[1] ~= fingerprint then
      return {'mismatch', ''}
    end
    redis.call('HSET', idempotency, 'fingerprint', fingerprint)
    return {'replayed', first[2]}
  end
end

local full = 'FULL the queue is full'
local open = redis.call('XLEN', queue) + redis.call('ZCARD', retries)
local free = queue_limit - open
if free <= 0 then
  return redis.error_reply(full)
elseif open > free then
  -- A merchant may have at most `free` open transactions, so one flood leaves half to others: refuse
  -- if the merchant's `free`-th newest transaction is still open.
  local earlier = redis.call('ZREVRANGE', index, free - 1, free - 1)[1] or ''
  local status = call_on_edited('HGET', transaction:sub(1, -#id - 1) .. earlier:sub(-#id), 'status')
  if is_open(status) then
    return redis.error_reply(full)
  end
end

local entry = redis.call('XADD', queue, '*',
  'transaction_id', id, 'request_id', request_id, 'user_id', user_id,
  'traceparent', traceparent)
redis.call('HSET', transaction, 'request_id', request_id, 'entry', entry, unpack(ARGV, 10))
if traceparent ~= '' then
  redis.call('HSET', transaction, 'traceparent', traceparent)
end
redis.call('ZADD', index, 0, member)
if idempotency then
  redis.call('HSET', idempotency, 'fingerprint', fingerprint, 'answer', response)
  redis.call('EXPIRE', idempotency, lifetime_seconds)
end
return {'accepted', ''}
