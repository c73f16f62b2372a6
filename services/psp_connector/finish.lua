#!lua flags=allow-oom
-- Ends a transaction: status, timeline, loyalty credit and, when it failed, the dead letter; the
-- acknowledgement comes last. All or nothing, and nothing twice. It may run on a full Redis: it
-- frees memory.
--
-- KEYS  1 transaction:{id}   2 queue   3 user:{id}:points   4 user:{id}:ledger
--       5 user:{id}:transactions   6 retries   7 deadletters
-- ARGV  1 id   2 group   3 entry of the queue   4 final status   5 now, RFC 3339
--       6 event for the timeline   7 PSP reference or ''   8 decline code or ''
--       9 points   10 entry for the ledger   11 lifetime of the record, seconds
--       12 the index forgets members below this   13 reason for a dead letter or ''
--       14 dead letters below this stream id are forgotten   15 connector
-- Returns  'done', 'final' when it had ended before, 'missing' when there is no such transaction,
--          'taken' when it is another connector's to say that it failed
local credit = ARGV[4] == 'captured' and tonumber(ARGV[9]) > 0
local letter = ARGV[13] ~= ''
check_types('hash', 'stream', credit and 'string', credit and 'list', 'zset', 'zset',
  letter and 'stream')

local function acknowledge(entry)
  redis.call('XACK', KEYS[2], ARGV[2], entry)
  redis.call('XDEL', KEYS[2], entry)
end

-- What the PSP answers is the same for every connector, that an answer did not come is not: one that
-- was thought dead may give up while the one that took over gets `captured`.
if ARGV[4] == 'failed'
    and #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1, ARGV[15]) == 0 then
  return 'taken'
end
local record = redis.call('HMGET', KEYS[1], 'status', 'timeline', 'entry')
local status, timeline, entry = record[1], record[2], record[3]
if status ~= 'queued' and status ~= 'processing' then
  acknowledge(ARGV[3])
  return status and 'final' or 'missing'
end

if credit then
  -- INCRBY would refuse it after the first write.
  local points = redis.call('GET', KEYS[3]) or '0'
  if #points > 15 or not points:find('^%-?%d+$') then
    return redis.error_reply('WRONGTYPE ' .. KEYS[3] .. ' is no whole number of up to 15 digits')
  end
end

local fields = {'status', ARGV[4], 'updated_at', ARGV[5],
  'timeline', (timeline and timeline .. ', ' or '') .. ARGV[6]}
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
if ARGV[7] ~= '' then
  set('psp_reference', ARGV[7])
end
if ARGV[8] ~= '' then
  set('decline_code', ARGV[8])
end
if ARGV[4] == 'captured' then
  set('loyalty_points', ARGV[9])
end
if letter then
  redis.call('XADD', KEYS[7], 'MINID', '~', ARGV[14], '*',
    'transaction_id', ARGV[1], 'reason', ARGV[13], 'at', ARGV[5])
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('EXPIRE', KEYS[1], ARGV[11])
if credit then
  redis.call('INCRBY', KEYS[3], ARGV[9])
  redis.call('RPUSH', KEYS[4], ARGV[10])
end
redis.call('ZREMRANGEBYLEX', KEYS[5], '-', '(' .. ARGV[12])
-- A connector may have taken over from this one, too slow to keep its lease, and have scheduled the
-- transaction once more. That attempt would find it final; it is not worth a dead letter.
redis.call('ZREM', KEYS[6], ARGV[1])
if entry and entry ~= ARGV[3] then
  -- Written by hand it may be no stream id, which is an error: then there is no such entry.
  redis.pcall('XACK', KEYS[2], ARGV[2], entry)
  redis.pcall('XDEL', KEYS[2], entry)
end
acknowledge(ARGV[3])
return 'done'
