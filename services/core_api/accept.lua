#!lua
-- Accepts a transaction: writes its record, the user's index, the queue entry and the response for
-- the Idempotency-Key atomically. The first line has no flags, so a full or read-only Redis refuses
-- the script before its first write.
--
-- KEYS  1 transaction:{id}     2 user:{id}:transactions   3 queue   4 retries
--       5 user:{id}:idempotency:{key}   (only when the client sent a key)
-- ARGV  1 id   2 user id   3 member of the index   4 request id   5 queue limit
--       6 traceparent or ''
--       7 the response: the transaction as JSON, whose fields are those of the record
--       and with a key: 8 fingerprint of the request   9 lifetime, seconds
-- A call that finds what it or an earlier one has written writes again, so that a WAIT after it waits
-- for that, too.
-- Returns  {'accepted', ''}  {'replayed', the first response}  {'mismatch', ''}  {'full', ''}
local transaction, index, queue, retries, idempotency = unpack(KEYS)
local id, user_id, member, request_id, queue_limit, traceparent, response, fingerprint,
  lifetime_seconds = unpack(ARGV)
check_types('hash', 'zset', 'stream', 'zset', 'hash')

-- A client that lost its connection may repeat the call: already accepted.
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

if redis.call('XLEN', queue) + redis.call('ZCARD', retries) >= tonumber(queue_limit) then
  return {'full', ''}
end

local entry = redis.call('XADD', queue, '*',
  'transaction_id', id, 'request_id', request_id, 'user_id', user_id,
  'traceparent', traceparent)
local record = {'request_id', request_id, 'entry', entry}
if traceparent ~= '' then
  record[#record + 1] = 'traceparent'
  record[#record + 1] = traceparent
end
for name, value in pairs(cjson.decode(response)) do
  if type(value) == 'number' then
    value = string.format('%.0f', value)
  elseif type(value) == 'table' then
    -- The timeline, as a comma-separated list, so that a script can append an event.
    value = cjson.encode(value):sub(2, -2)
  end
  record[#record + 1] = name
  record[#record + 1] = value
end
redis.call('HSET', transaction, unpack(record))
redis.call('ZADD', index, 0, member)
if idempotency then
  redis.call('HSET', idempotency, 'fingerprint', fingerprint, 'answer', response)
  redis.call('EXPIRE', idempotency, lifetime_seconds)
end
return {'accepted', ''}
