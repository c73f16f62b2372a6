-- Raises an error if a key has another type than expected at its index in KEYS (`false`: any type).
-- Call before the first write: Redis does not roll back a failed script. `scripts.script` prepends
-- this to every script.
local function check_types(...)
  for i, expected in ipairs({...}) do
    local found = KEYS[i] and redis.call('TYPE', KEYS[i]).ok
    if found and expected and found ~= 'none' and found ~= expected then
      error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. found .. ', not a ' .. expected})
    end
  end
end

