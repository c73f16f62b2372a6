#!lua flags=allow-oom
-- Begins an attempt for each of several transactions. An unreadable record is reported and left
-- unchanged; an error would block the others in this call on every retry.
--
-- KEYS  transaction:{id} of each
-- ARGV  1 now, RFC 3339   2 the PSP   3 and on: a traceparent or '' for each; for each '1' if an earlier
--       attempt may be unrecorded (after a sweep or replay), else ''; two or more fields to return
-- Returns  for each a list: '1' or, if a PSP may have seen a recorded attempt, '', then those fields; or
--          {reason} if it cannot be charged
local now, psp = ARGV[1], ARGV[2]
check_keys({false, 'HINCRBY', 'HSET'})
-- At most 9 digits, so that the next number is valid, too. HINCRBY rejects leading zeros.
local function is_count(text)
  return text and #text < 10 and (text == '0' or text:find('^[1-9]%d*$'))
end

local function why_not(record)
  if record.err then
    return 'unreadable record: not a hash'
  elseif not record[1] then
    return 'unknown transaction'
  elseif not is_open(record[1]) then
    return 'transaction is ' .. record[1]:sub(1, 40) .. ' already'
  elseif not is_count(record[2]) then
    return 'unreadable record: attempts is ' .. (record[2] or 'missing'):sub(1, 40)
  elseif not record[3] then
    return 'unreadable record: timeline is missing'
  end
end

local replies = {}
for i, key in ipairs(KEYS) do
  local record = call_on_edited('HMGET', key, 'status', 'attempts', 'timeline', 'psp', 'attempted_at')
  local reason = why_not(record)
  if reason then
    replies[i] = {reason}
  else
    local attempt = redis.call('HINCRBY', key, 'attempts', 1)
    local event = '{"event": "processing", "at": "' .. now .. '", "attempt": ' .. attempt .. '}'
    redis.call('HSET', key, 'status', 'processing', 'updated_at', now,
      'timeline', extended(record[3], event))
    -- Where and since when the idempotency key is known. No PSP has seen an attempt if `psp` is missing
    -- and `attempted_at` is ''; if both are missing, an earlier version may have made attempts.
    local is_first = not record[4]
    if is_first then
      redis.call('HSET', key, 'psp', psp)
      if (record[5] == '' or attempt == 1) and ARGV[2 + #KEYS + i] == '' then
        redis.call('HSET', key, 'attempted_at', now)
      end
    end
    replies[i] = redis.call('HMGET', key, unpack(ARGV, 3 + 2 * #KEYS))
    table.insert(replies[i], 1, is_first and '1' or '')
    if ARGV[2 + i] ~= '' then
      -- Set after the reply was read, which has the previous attempt's.
      redis.call('HSET', key, 'attempt_traceparent', ARGV[2 + i])
    end
  end
end
return replies
