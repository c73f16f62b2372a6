#!lua flags=allow-oom
-- Takes a merchant's oldest entries among those that were set aside.
--
-- KEYS  1 queue
-- ARGV  1 group   2 the merchant's consumer   3 to whom   4 how many at the most
-- Returns  of each entry taken its id and its {name, value, ...} as JSON, in one flat list: a client
--          library takes several times as long to read nested ones
check_types('stream')
local ids = {}
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])) do
  ids[#ids + 1] = pending[1]
end
if #ids == 0 then
  return {}
end
local taken = {}
for _, entry in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, unpack(ids))) do
  taken[#taken + 1] = entry[1]
  taken[#taken + 1] = cjson.encode(entry[2])
end
return taken
