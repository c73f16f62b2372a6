#!lua
-- Queues a failed transaction again with fresh attempts, and removes its dead letter. The only way
-- out of a final status; an operator triggers it, and the timeline records it. Captured and
-- declined transactions never change. Within a day and at the same PSP (checked by deadletters.py) the
-- idempotency key is still known, so nothing is charged twice.
--
-- not_captured is '1' if the operator has verified that the PSP has not captured it, else ''.
--
-- Returns  'done', 'missing', 'gone' (no such dead letter) or the status that is not `failed`
local transaction, queue, deadletters = unpack(KEYS)
local id, letter_id, now, event, not_captured = unpack(ARGV)
check_keys({false, 'HSET', 'HDEL', 'PERSIST'}, {'stream', 'XADD'}, {'stream', 'XDEL'})
if #redis.call('XRANGE', deadletters, letter_id, letter_id) == 0 then
  return 'gone'
end
local record = call_on_edited('HMGET', transaction, 'status', 'timeline')
if record[1] ~= 'failed' then
  return record[1] or 'missing'
end
requeue(queue, transaction, id, 'replayed', '1')
redis.call('HSET', transaction, 'status', 'queued', 'attempts', 0, 'updated_at', now,
  'timeline', extended(record[2], event))
if not_captured ~= '' then
  redis.call('HSET', transaction, 'not_captured_at', now)
  redis.call('HDEL', transaction, 'psp')
end
redis.call('PERSIST', transaction)
redis.call('XDEL', deadletters, letter_id)
return 'done'
