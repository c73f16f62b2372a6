#!lua flags=allow-oom
-- Moves entries from a consumer to its merchants' consumers, where they wait for a slot in order of
-- arrival. Moves only entries that the consumer still holds: if two connectors reclaim from a dead
-- one, the second finds none. Does not use XCLAIM's idle time: after the wall clock was set back, an
-- entry looks busy for hours.
--
-- ARGV  from first_id on the entries in order, each its id and its merchant's consumer
-- Returns  the ids of the moved entries
local queue = KEYS[1]
local group, consumer, first_id = unpack(ARGV, 1, 3)
local pending_max = 10000 -- more than a connector ever holds
check_keys({'stream'})
local is_held = {}
for _, pending in ipairs(redis.call('XPENDING', queue, group, first_id, ARGV[#ARGV - 1], pending_max,
    consumer)) do
  is_held[pending[1]] = true
end
local moved, by_merchant = {}, {}
for i = 3, #ARGV, 2 do
  local id, merchant = ARGV[i], ARGV[i + 1]
  if is_held[id] then
    moved[#moved + 1] = id
    by_merchant[merchant] = by_merchant[merchant] or {}
    table.insert(by_merchant[merchant], id)
  end
end
for merchant, ids in pairs(by_merchant) do
  table.insert(ids, 'JUSTID')
  redis.call('XCLAIM', queue, group, merchant, 0, unpack(ids))
end
return moved
