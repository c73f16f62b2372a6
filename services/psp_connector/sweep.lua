#!lua flags=allow-oom
-- Finds orphaned transactions (open, but in no queue: after XGROUP DELCONSUMER or DEL queue by
-- hand), and queues them again unless in 'look' mode. Each step of a transaction is an atomic
-- script, so an open one always has an entry that is pending or undelivered, or a scheduled retry.
--
-- KEYS  after the named ones transaction:{id} of each
-- ARGV  after the named ones the id of each; mode is 'queue' or 'look'
-- Returns  the ids of the orphans
local queue, retries = unpack(KEYS)
local group, mode = unpack(ARGV)
check_keys({'stream'}, {'zset'})

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

local function is_queued(entry)
  local ms, number = parts(entry)
  if not ms then
    return false
  end
  local pending = call_on_edited('XPENDING', queue, group, entry, entry, 1)
  if pending.err or not redis.call('XRANGE', queue, entry, entry)[1] then
    return false
  end
  return #pending > 0 or ms > last_ms or (ms == last_ms and number > last_number)
end

local orphans = {}
for i = 3, #KEYS do
  local id, record = ARGV[i], call_on_edited('HMGET', KEYS[i], 'status', 'entry')
  local last = record[2] or ''
  if is_open(record[1]) and not is_queued(last) and not redis.call('ZSCORE', retries, id) then
    orphans[#orphans + 1] = id
    if mode == 'queue' then
      check_permissions(queue, 'XACK', 'XDEL', 'XADD')
      check_permissions(KEYS[i], 'HSET')
      -- Before the new entry, which may have the same id: the queue may have been deleted within this
      -- millisecond.
      call_on_edited('XACK', queue, group, last)
      call_on_edited('XDEL', queue, last)
      requeue(queue, KEYS[i], id, 'swept', '1')
    end
  end
end
return orphans
