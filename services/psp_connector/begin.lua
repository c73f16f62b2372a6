#!lua flags=allow-oom
-- Notes that an attempt begins, for several transactions at once.
--
-- KEYS  transaction:{id} of each
-- ARGV  1 now, RFC 3339
-- Returns for each: a list of
--   user id, amount, currency, payment method, number of this attempt, created at, request id
-- or {} when there is no such transaction, or {status} when it has ended already.
local answers = {}
for i, key in ipairs(KEYS) do
  local status = redis.call('HGET', key, 'status')
  if not status then
    answers[i] = {}
  elseif status ~= 'queued' and status ~= 'processing' then
    answers[i] = {status}
  else
    local attempt = redis.call('HINCRBY', key, 'attempts', 1)
    local timeline = redis.call('HGET', key, 'timeline') .. ', {"event": "processing", "at": "'
      .. ARGV[1] .. '", "attempt": ' .. attempt .. '}'
    redis.call('HSET', key, 'status', 'processing', 'updated_at', ARGV[1], 'timeline', timeline)
    answers[i] = redis.call('HMGET', key,
      'user_id', 'amount', 'currency', 'payment_method', 'attempts', 'created_at', 'request_id')
  end
end
return answers
