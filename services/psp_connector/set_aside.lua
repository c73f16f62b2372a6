#!lua flags=allow-oom
-- Moves entries from a consumer to its merchants' consumers, where they wait for a slot in order of
-- arrival. Only entries the consumer still holds: if two connectors reclaim from a dead one, the
-- second finds none. Does not use XCLAIM's idle time, which depends on the wall clock: after it is
-- set back, an entry looks busy for hours.
--
-- ARGV  from first_id on the entries in order, each its id and its merchant's consumer
-- Returns  the ids of the moved entries
local queue = KEYS[1]
local group, consumer, first_id = unpack(ARGV, 1, 3)
local pending_max = 10000 -- more than a connector ever holds
check_types('stream')
local is_own = {}
for _, pending in ipairs(redis.call('XPENDING', queue, group, first_id, ARGV[#ARGV - 1], pending_max,
    consumer)) do
  is_own[pending[1]] = true
end
local moved, of = {}, {}
for i = 3, #ARGV, 2 do
  local id, merchant = ARGV[i], ARGV[i + 1]
  if is_own[id] then
    moved[#moved + 1] = id
    of[merchant] = of[merchant] or {}
    table.insert(of[merchant], id)
  end
end
for merchant, ids in pairs(of) do
  table.insert(ids, 'JUSTID')
  redis.call('XCLAIM', queue, group, merchant, 0, unpack(ids))
end
return moved
