#!lua flags=allow-oom
-- Removes a consumer from the group, even a live one: its next read creates it again. One with pending
-- entries must stay: removing it would orphan them.
local queue = KEYS[1]
local group, consumer = unpack(ARGV)
check_keys({'stream'})
if #redis.call('XPENDING', queue, group, '-', '+', 1, consumer) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', queue, group, consumer)
end
