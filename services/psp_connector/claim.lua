#!lua flags=allow-oom
-- Takes entries over from a connector that died: those of them that are still its own. Of two that
-- see the same dead one, who comes second finds them the first's. Not left to XCLAIM's idle time:
-- that is measured on the wall clock, and after that was set back an entry is idle for less than no
-- time, for hours.
--
-- KEYS  1 queue
-- ARGV  1 group   2 from whom   3 to whom   4 ... entries
-- Returns  the entries taken, each {id, {name, value, ...}}
local taken = {}
for i = 4, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 1 then
    for _, entry in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[i])) do
      taken[#taken + 1] = entry
    end
  end
end
return taken
