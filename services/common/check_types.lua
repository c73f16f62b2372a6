-- Ends the script with an error, before it writes anything, when a key holds another type than the
-- one expected at its place in KEYS (`false`: any type). Redis rolls nothing back when a script fails
-- half-way. `store.script` puts this at the head of every script.
local function check_types(...)
  for i, expected in ipairs({...}) do
    local found = KEYS[i] and redis.call('TYPE', KEYS[i]).ok
    if found and expected and found ~= 'none' and found ~= expected then
      error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. found .. ', not a ' .. expected})
    end
  end
end

