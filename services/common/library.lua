-- Functions of all scripts: `scripts.script` puts them before each.

-- Raises an error if a key has another type than expected at its index in KEYS (`false`: any type).
-- Call before the first write: Redis does not roll back a failed script.
local function check_types(...)
  for i, expected in ipairs({...}) do
    local kind = KEYS[i] and redis.call('TYPE', KEYS[i]).ok
    if kind and expected and kind ~= 'none' and kind ~= expected then
      error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. expected})
    end
  end
end

local function is_open(status)
  return status == 'queued' or status == 'processing'
end

-- The timeline of a record, if it has one, with one more event.
local function extended(timeline, event)
  return (timeline and timeline .. ', ' or '') .. event
end

-- Queues an accepted transaction again; further arguments are fields of the entry. The record's `entry`
-- names the new entry, so that it can be removed if the transaction is finished by another attempt.
local function requeue(queue, transaction, id, ...)
  -- pcall: edited by hand, it may be no hash; begin.lua reports that.
  local record = redis.pcall('HMGET', transaction, 'status', 'request_id', 'user_id', 'traceparent')
  if record.err and not record.err:find('WRONGTYPE', 1, true) then
    error(record) -- it is on another node, because its slot is moving
  end
  local entry = redis.call('XADD', queue, '*', 'transaction_id', id, 'request_id', record[2] or '',
    'user_id', record[3] or '', 'traceparent', record[4] or '', ...)
  if record[1] then
    redis.call('HSET', transaction, 'entry', entry)
  end
  return entry
end

local function acknowledge(queue, group, entry)
  redis.call('XACK', queue, group, entry)
  redis.call('XDEL', queue, entry)
end

