#!lua flags=allow-oom
-- Claims up to count_max of the oldest entries that were set aside with the merchant's consumer.
--
-- Returns  for each entry its id and its {name, value, ...} as JSON, in one flat list: client
--          libraries parse nested lists several times slower
local queue = KEYS[1]
local group, merchant, consumer, count_max = unpack(ARGV)
check_keys({'stream'})
local ids = {}
for _, pending in ipairs(redis.call('XPENDING', queue, group, '-', '+', count_max, merchant)) do
  ids[#ids + 1] = pending[1]
end
if #ids == 0 then
  return {}
end
local taken = {}
for _, entry in ipairs(redis.call('XCLAIM', queue, group, consumer, 0, unpack(ids))) do
  taken[#taken + 1] = entry[1]
  taken[#taken + 1] = cjson.encode(entry[2])
end
return taken
