#!lua flags=allow-oom
-- Notes that an attempt begins, for several transactions at once. One that cannot be read is told
-- apart and not touched: an error here would hold up the others of this call, again and again.
--
-- KEYS  transaction:{id} of each
-- ARGV  1 now, RFC 3339
-- Returns for each: a list of
--   user id, amount, currency, payment method, number of this attempt, created at, request id
-- or {reason} when it is not to be worked on.

local function number(text)
  return text and text:find('^%d+$')
end

local function why_not(record)
  if record.err then
    return 'unreadable record'
  elseif not record[1] then
    return 'unknown transaction'
  elseif record[1] ~= 'queued' and record[1] ~= 'processing' then
    return 'transaction is ' .. record[1] .. ' already'
  elseif not (number(record[2]) and number(record[3]) and number(record[4]) and record[5]
      and record[6] and record[7]) then
    return 'unreadable record'
  end
end

local answers = {}
for i, key in ipairs(KEYS) do
  local record = redis.pcall('HMGET', key,
    'status', 'attempts', 'user_id', 'amount', 'currency', 'payment_method', 'timeline')
  local reason = why_not(record)
  if reason then
    answers[i] = {reason}
  else
    local attempt = redis.call('HINCRBY', key, 'attempts', 1)
    local timeline = record[7] .. ', {"event": "processing", "at": "'
      .. ARGV[1] .. '", "attempt": ' .. attempt .. '}'
    redis.call('HSET', key, 'status', 'processing', 'updated_at', ARGV[1], 'timeline', timeline)
    answers[i] = redis.call('HMGET', key,
      'user_id', 'amount', 'currency', 'payment_method', 'attempts', 'created_at', 'request_id')
  end
end
return answers
