#!lua flags=allow-oom
-- Removes an idle consumer from the group. One with pending entries must stay: removing it would
-- orphan them.
--
-- Returns  1 if removed
local queue, lease = unpack(KEYS)
local group, consumer = unpack(ARGV)
check_types('stream', 'string')
if redis.call('EXISTS', lease) == 1 then
  return 0
end
if #redis.call('XPENDING', queue, group, '-', '+', 1, consumer) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', queue, group, consumer)
return 1
