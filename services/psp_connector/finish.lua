#!lua flags=allow-oom
-- Finishes a transaction: status, timeline, loyalty credit, dead letter if it failed, and last the
-- acknowledgement. Atomic and idempotent. Allowed on a full Redis because it frees memory.
--
-- The dead letter's reason is why it failed, or what was captured. The index is trimmed below the
-- member index_oldest, dead letters below the id letters_oldest. From details on: names and values
-- of further fields of the record.
--
-- Returns  'done', 'final' if it was final already, 'missing' if there is no such transaction,
--          'taken' if it failed here while another connector holds the entry
local transaction, queue, points, ledger, index, retries, deadletters = unpack(KEYS)
local id, group, entry_id, final_status, now, event, credit, ledger_entry, lifetime_seconds,
  index_oldest, reason, letters_oldest, connector = unpack(ARGV)
local details = 14
local is_credited = final_status == 'captured' and tonumber(credit) > 0
local has_failed = final_status == 'failed'
check_keys({'hash', 'HSET', 'EXPIRE'}, {'stream', 'XACK', 'XDEL'}, is_credited and {'string', 'INCRBY'},
  is_credited and {'list', 'RPUSH'}, {'zset', 'ZREMRANGEBYLEX'}, {'zset', 'ZREM'},
  has_failed and {'stream', 'XADD'})

-- The PSP's response is the same for every connector; a missing response is not. A connector that
-- was thought dead may give up while the one that reclaimed the entry gets `captured`.
if has_failed and #redis.call('XPENDING', queue, group, entry_id, entry_id, 1, connector) == 0 then
  return 'taken'
end
local record = redis.call('HMGET', transaction, 'status', 'timeline', 'entry')
local status, timeline, entry = record[1], record[2], record[3]
if not is_open(status) then
  if final_status == 'captured' and status ~= 'captured' then
    -- Deleted or ended by hand, or given up by another connector; the money was taken. pcall: the
    -- key's type was not checked.
    local state = status and 'its status is ' .. status:sub(1, 40) or 'it has no record'
    local letter = redis.pcall('XADD', deadletters, 'MINID', '~', letters_oldest, '*',
      'transaction_id', id, 'reason', reason .. ', but ' .. state, 'at', now)
    if letter.err then
      return letter
    end
  end
  acknowledge(queue, group, entry_id)
  return status and 'final' or 'missing'
end

if is_credited then
  -- Checked now, because INCRBY would fail after the first write. It rejects leading zeros.
  local balance = redis.call('GET', points) or '0'
  if #balance > 15 or not (balance == '0' or balance:find('^%-?[1-9]%d*$')) then
    return redis.error_reply('WRONGTYPE ' .. points .. ' is no whole number of up to 15 digits')
  end
end

if has_failed then
  redis.call('XADD', deadletters, 'MINID', '~', letters_oldest, '*',
    'transaction_id', id, 'reason', reason, 'at', now)
end
redis.call('HSET', transaction, 'status', final_status, 'updated_at', now,
  'timeline', extended(timeline, event), unpack(ARGV, details))
redis.call('EXPIRE', transaction, lifetime_seconds)
if is_credited then
  redis.call('INCRBY', points, credit)
  redis.call('RPUSH', ledger, ledger_entry)
end
redis.call('ZREMRANGEBYLEX', index, '-', '(' .. index_oldest)
-- If this connector lost its lease, another may have scheduled a retry. Remove it: it would only
-- find the transaction final and leave a dead letter.
redis.call('ZREM', retries, id)
if entry and entry ~= entry_id then
  call_on_edited('XACK', queue, group, entry)
  call_on_edited('XDEL', queue, entry)
end
acknowledge(queue, group, entry_id)
return 'done'
