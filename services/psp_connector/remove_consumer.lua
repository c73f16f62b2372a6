#!lua flags=allow-oom
-- Removes a consumer that holds nothing from the group. One that holds entries must stay: removing
-- it would take them out of everybody's reach.
--
-- KEYS  1 queue   2 connector:{name}, its lease
-- ARGV  1 group   2 consumer
-- Returns  1 when it was removed
check_types('stream', 'string')
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
