-- Functions of all scripts: `scripts.script` puts them before each.

-- Raises an error if the user has no permission for one of the commands on a key: permissions may have
-- changed since the start. A compatible server without redis.acl_check_cmd skips this check.
local function check_permissions(key, ...)
  for _, command in ipairs(redis.acl_check_cmd and {...} or {}) do
    if not redis.acl_check_cmd(command, key) then
      error({err = 'NOPERM this user has no permission for ' .. command .. ' on ' .. key})
    end
  end
end

-- Checks the keys before the first write, because Redis does not roll back a failed script. One argument
-- for each of KEYS: {type, command, ...}, where type is `false` if any will do, and the commands are those
-- called from the first write on; or only `false` to skip the key. Raises an error if a key has another
-- type or a permission is missing.
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

-- Calls a command on data that may have been edited by hand: returns the error if a key has another type
-- or a stream id is invalid, and raises any other. A missing permission must not look like missing data.
local function call_on_edited(...)
  local reply = redis.pcall(...)
  local fault = type(reply) == 'table' and reply.err
  if fault and not (fault:find('WRONGTYPE', 1, true) or fault:find('Invalid stream ID', 1, true)) then
    error(reply)
  end
  return reply
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
  -- If it is no hash, begin.lua reports that.
  local record = call_on_edited('HMGET', transaction, 'status', 'request_id', 'user_id', 'traceparent')
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

