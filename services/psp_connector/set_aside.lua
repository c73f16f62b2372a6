#!lua flags=allow-oom
-- Hands entries from a consumer to those of their merchants, where they wait for a slot in the order
-- in which they came. Only those that are still the consumer's own: of two connectors that take over
-- from a dead one, the second finds them gone. Not left to XCLAIM's idle time, which is measured on
-- the wall clock: set back, an entry looks busy for hours.
--
-- KEYS  1 queue
-- ARGV  1 group   2 from whom   3 how many it may hold between the first and the last, at the most
--       4 ... entries in order, each its id and the consumer of its merchant
-- Returns  the ids of those handed over
check_types('stream')
local is_own = {}
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[#ARGV - 1], ARGV[3],
    ARGV[2])) do
  is_own[pending[1]] = true
end
local moved, of = {}, {}
for i = 4, #ARGV, 2 do
  local id, merchant = ARGV[i], ARGV[i + 1]
  if is_own[id] then
    moved[#moved + 1] = id
    of[merchant] = of[merchant] or {}
    table.insert(of[merchant], id)
  end
end
for merchant, ids in pairs(of) do
  table.insert(ids, 'JUSTID')
  redis.call('XCLAIM', KEYS[1], ARGV[1], merchant, 0, unpack(ids))
end
return moved
