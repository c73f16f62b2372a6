#!lua
-- Copies one transaction many times, each copy under an id of its own, as if the copies had come the
-- same way: the fields of its record, its place in the user's index, its entry in the queue and its
-- credit in the ledger, where it has them. Whatever a record looks like, a copy looks the same.
--
-- KEYS  1 transaction:{id}   2 user:{id}:transactions   3 queue   4 user:{id}:ledger
-- ARGV  1 id   2 member of the index   3 number of the first copy   4 how many
--       5 entry of the queue, JSON list of names and values, or ''   6 entry of the ledger or ''
local fields = redis.call('HGETALL', KEYS[1])
local old = string.gsub(ARGV[1], '%-', '%%-')
local entry = ARGV[5] ~= '' and cjson.decode(ARGV[5])

local function copied(values, new)
  local copy = {}
  for i, value in ipairs(values) do
    copy[i] = string.gsub(value, old, new)
  end
  return copy
end

for number = ARGV[3], ARGV[3] + ARGV[4] - 1 do
  local new = string.format('%08x-0000-4000-8000-000000000000', number)
  local key = string.gsub(KEYS[1], old, new)
  redis.call('HSET', key, unpack(copied(fields, new)))
  redis.call('ZADD', KEYS[2], 0, (string.gsub(ARGV[2], old, new)))
  if entry then
    redis.call('HSET', key, 'entry', redis.call('XADD', KEYS[3], '*', unpack(copied(entry, new))))
  end
  if ARGV[6] ~= '' then
    redis.call('RPUSH', KEYS[4], (string.gsub(ARGV[6], old, new)))
  end
end
return tonumber(ARGV[4])
