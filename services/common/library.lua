-- Functions of all scripts: `scripts.script` puts them before each.

-- Raises an error if the user has no permission for one of the commands on a key. They may have changed
-- since the start. Without Redis 7 (but one that is compatible) they are not checked.
local function check_permissions(key, ...)
  for _, command in ipairs(redis.acl_check_cmd and {...} or {}) do
    if not redis.acl_check_cmd(command, key) then
      error({err = 'NOPERM this user has no permission for ' .. command .. ' ' .. key})
    end
  end
end

-- Checks the keys before the first write, because Redis does not roll back a failed script. For each in
-- KEYS: its type (`false`: any), then the commands that the script calls on it from its first write on;
-- or `false` for a key that is not used. Raises an error if one has another type, or on a missing
-- permission.
local function check_keys(...)
  for i, expected in ipairs({...}) do
    local key, kind = KEYS[i], expected and expected[1]
    local found = key and kind and redis.call('TYPE', key).ok
    if found and found ~= 'none' and found ~= kind then
      error({err = 'WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. kind})
    elseif key and expected then
      check_permissions(key, unpack(expected, 2))
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

