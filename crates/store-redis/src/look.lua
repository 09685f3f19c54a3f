-- Looks into many sorted sets at once; changes nothing. Answers a list of pairs: which key (from
-- 1), and what was found there; keys where there is nothing are left out.
local mode = ARGV[1]
local found = {}
for i, key in ipairs(KEYS) do
  local here
  if mode == 'count' then
    here = redis.call('ZCARD', key)
    if here == 0 then
      here = nil
    end
  elseif mode == 'first' then
    here = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  elseif mode == 'up' then
    here = redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  elseif mode == 'down' then
    here = redis.call('ZREVRANGEBYSCORE', key, ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  end
  if type(here) == 'number' or (here and #here > 0) then
    found[#found + 1] = i
    found[#found + 1] = here
  end
end
return found
