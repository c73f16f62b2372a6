#!lua flags=allow-oom
-- Removes an idle consumer from the group. One with pending entries must stay: removing it would
-- orphan them.
--
-- KEYS  1 queue   2 connector:{name}, its lease
-- ARGV  1 group   2 consumer
-- Returns  1 if removed
check_types('stream', 'string')
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
