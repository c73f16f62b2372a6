#!lua flags=allow-oom
-- Creates the consumer group if missing, even in a full Redis: without it, nothing drains the queue.
local queue = KEYS[1]
local group = ARGV[1]
check_types('stream')
local made = redis.pcall('XGROUP', 'CREATE', queue, group, '0', 'MKSTREAM')
if made.err and not made.err:find('BUSYGROUP') then
  return made
end
