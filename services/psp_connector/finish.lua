#!lua flags=allow-oom
-- Finishes a transaction: status, timeline, loyalty credit, dead letter if it failed, and last the
-- acknowledgement. Atomic and idempotent. Allowed on a full Redis because it frees memory.
--
-- KEYS  1 transaction:{id}   2 queue   3 user:{id}:points   4 user:{id}:ledger
--       5 user:{id}:transactions   6 retries   7 deadletters
-- ARGV  1 id   2 group   3 entry of the queue   4 final status   5 now, RFC 3339
--       6 event for the timeline   7 PSP reference or ''   8 decline code or ''
--       9 points   10 entry for the ledger   11 lifetime of the record, seconds
--       12 index member below which the index is trimmed   13 reason for a dead letter or ''
--       14 stream id below which dead letters are trimmed   15 connector
-- Returns  'done', 'final' if it was final already, 'missing' if there is no such transaction,
--          'taken' if it failed here while another connector holds the entry
local credit = ARGV[4] == 'captured' and tonumber(ARGV[9]) > 0
local letter = ARGV[13] ~= ''
check_types('hash', 'stream', credit and 'string', credit and 'list', 'zset', 'zset',
  letter and 'stream')

local function acknowledge(entry)
  redis.call('XACK', KEYS[2], ARGV[2], entry)
  redis.call('XDEL', KEYS[2], entry)
end

-- The PSP's response is the same for every connector; a missing response is not. A connector that
-- was thought dead may give up while the one that reclaimed the entry gets `captured`.
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
  -- Checked now, because INCRBY would fail after the first write.
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
-- If this connector lost its lease, another may have scheduled a retry. Remove it: it would only
-- find the transaction final and leave a dead letter.
redis.call('ZREM', KEYS[6], ARGV[1])
if entry and entry ~= ARGV[3] then
  -- pcall: edited by hand, it may be an invalid stream id.
  redis.pcall('XACK', KEYS[2], ARGV[2], entry)
  redis.pcall('XDEL', KEYS[2], entry)
end
acknowledge(ARGV[3])
return 'done'
