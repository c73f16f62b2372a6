#!lua flags=allow-oom
-- Creates the consumer group if missing, even in a full Redis: without it, nothing drains the queue.
-- Records where this connector charges, for replays.
local queue, psp = unpack(KEYS)
local group, charges_at = unpack(ARGV)
check_keys({'stream'}, {false, 'SET'})
local made = redis.pcall('XGROUP', 'CREATE', queue, group, '0', 'MKSTREAM')
if made.err and not made.err:find('BUSYGROUP') then
  return made
end
redis.call('SET', psp, charges_at)
