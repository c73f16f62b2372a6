#!lua flags=allow-oom
-- Removes a connector that holds nothing from the group; one that holds entries must stay, or
-- they would be lost to everybody.
--
-- KEYS  1 queue   2 connector:{name}, its lease
-- ARGV  1 group   2 connector
-- Returns  1 when it was removed
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
