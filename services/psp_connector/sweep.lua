#!lua flags=allow-oom
-- Finds orphaned transactions (open, but in no queue: after XGROUP DELCONSUMER or DEL queue by
-- hand), and queues them again unless in 'look' mode. Each step of a transaction is an atomic
-- script, so an open one always has an entry that is pending or undelivered, or a scheduled retry.
--
-- KEYS  after the named ones transaction:{id} of each
-- ARGV  after the named ones the id of each; mode is 'queue' or 'look'
-- Returns  the ids found
local queue, retries = unpack(KEYS)
local group, mode = unpack(ARGV)
check_types('stream', 'zset')

local function parts(id)
  local ms, number = id:match('^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local last_ms, last_number
for _, facts in ipairs(redis.call('EXISTS', queue) == 1 and redis.call('XINFO', 'GROUPS', queue) or {}) do
  local about = {}
  for i = 1, #facts, 2 do
    about[facts[i]] = facts[i + 1]
  end
  if about.name == group then
    last_ms, last_number = parts(about['last-delivered-id'])
  end
end
if not last_ms then
  return {}
end

-- Whether the entry belongs to the transaction: a stream that was deleted and created again may
-- reuse an id within the same millisecond.
local function is_of(entry, id)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'transaction_id' then
      return entry[2][i + 1] == id
    end
  end
end

local function is_queued(entry, id)
  local ms, number = parts(entry)
  if not ms then
    return false
  end
  -- pcall: edited by hand, it may be too large for a stream id.
  local pending = redis.pcall('XPENDING', queue, group, entry, entry, 1)
  local held = not pending.err and redis.call('XRANGE', queue, entry, entry)[1]
  if not held or not is_of(held, id) then
    return false
  end
  return #pending > 0 or ms > last_ms or (ms == last_ms and number > last_number)
end

local found = {}
for i = 3, #KEYS do
  local id, record = ARGV[i], redis.pcall('HMGET', KEYS[i], 'status', 'entry')
  local last = record[2] or ''
  if is_open(record[1]) and not is_queued(last, id) and not redis.call('ZSCORE', retries, id) then
    found[#found + 1] = id
    if mode == 'queue' then
      local entry = requeue(queue, KEYS[i], id, 'swept', '1')
      local old = redis.pcall('XRANGE', queue, last, last)[1]
      -- Within a millisecond of `DEL queue`, the new entry may have the old one's id.
      if old and last ~= entry and is_of(old, id) then
        acknowledge(queue, group, last)
      end
    end
  end
end
return found
