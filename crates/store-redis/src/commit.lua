-- Makes the writes of one call, all of them or (if the call was made before) none.
--
-- KEYS[1]: what this store's last call did here; then the keys of each write, in order.
-- ARGV[1]: the number of this call; ARGV[2]: how long to remember it, in milliseconds; then each
-- write: a letter and its arguments.
-- Answers one letter for each write: 1 made, E exists, C changed by another, N not there.
--
-- Every key that may be touched is in KEYS: a cluster that moves a slot then refuses the whole
-- call, instead of stopping it in the middle.
local call = redis.call
local last = call('GET', KEYS[1])
if last then
  local number, results = string.match(last, '^(%d+) (.*)$')
  if number == ARGV[1] then
    -- A write, so that WAIT on this connection waits for what the first try wrote.
    call('PEXPIRE', KEYS[1], ARGV[2])
    return results
  elseif tonumber(number) > tonumber(ARGV[1]) then
    return redis.error_reply('DTMDLATE a later call has been made')
  end
end

local results = {}
local k, a = 1, 2

local function header(key)
  return call('HGET', key, 'h')
end

local function is_final(h)
  local status = string.sub(h, 3, 3)
  return status == '3' or status == '4'
end

-- Puts a gid into a list, and counts it. The last two letters of a list's name are its code.
local function enlist(totals, list, arrival, gid)
  if call('ZADD', list, arrival, gid) == 1 then
    call('HINCRBY', totals, string.sub(list, -2), 1)
  end
end

local function unlist(totals, list, gid)
  if call('ZREM', list, gid) == 1 and call('HINCRBY', totals, string.sub(list, -2), -1) <= 0 then
    call('HDEL', totals, string.sub(list, -2))
  end
end

local function create()
  local key, times, list, totals = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  local gid, h, record, score = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  k, a = k + 4, a + 4
  if call('EXISTS', key) == 1 then
    return 'E'
  end
  call('HSET', key, 'h', h, 'd', record)
  call('ZADD', times, score, gid)
  enlist(totals, list, string.sub(h, 20, 35), gid)
  return '1'
end

-- A change that leaves type and status as they are.
local function update()
  local key, times = KEYS[k + 1], KEYS[k + 2]
  local gid, state, h = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local record, score = ARGV[a + 4], ARGV[a + 5]
  k, a = k + 2, a + 5
  local stored = header(key)
  if not stored then
    return 'N'
  elseif string.sub(stored, 2, 19) ~= state then
    return 'C'
  end
  h = string.sub(h, 1, 19) .. string.sub(stored, 20, 35) .. string.sub(h, 36)
  call('HSET', key, 'h', h, 'd', record)
  call('ZADD', times, score, gid)
  return '1'
end

-- A change that moves the global into another list, and perhaps to the ended ones.
local function move()
  local key, times, new_times = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local list, new_list, totals = KEYS[k + 4], KEYS[k + 5], KEYS[k + 6]
  local gid, state, h = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local record, score = ARGV[a + 4], ARGV[a + 5]
  k, a = k + 6, a + 5
  local stored = header(key)
  if not stored then
    return 'N'
  elseif string.sub(stored, 2, 19) ~= state then
    return 'C'
  end
  local arrival = string.sub(stored, 20, 35)
  h = string.sub(h, 1, 19) .. arrival .. string.sub(h, 36)
  call('HSET', key, 'h', h, 'd', record)
  call('ZADD', new_times, score, gid)
  if times ~= new_times then
    call('ZREM', times, gid)
  end
  unlist(totals, list, gid)
  enlist(totals, new_list, arrival, gid)
  return '1'
end

local function lease()
  local key, due = KEYS[k + 1], KEYS[k + 2]
  local gid, held, epoch, wake = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local owner, score = ARGV[a + 5], ARGV[a + 6]
  k, a = k + 2, a + 6
  local stored = header(key)
  if not stored then
    return 'N'
  elseif string.sub(stored, 4, 19) ~= held then
    return 'C'
  end
  local h = string.sub(stored, 1, 11) .. epoch .. string.sub(stored, 20, 35) .. wake
    .. string.sub(stored, 56, 95) .. owner
  call('HSET', key, 'h', h)
  if not is_final(stored) then
    call('ZADD', due, score, gid)
  end
  return '1'
end

-- Replaces a header that is exactly as it was read, if the global is due as it was seen to be:
-- between the look at the index and the reading, another may have taken it.
local function pick()
  local key, due = KEYS[k + 1], KEYS[k + 2]
  local gid, read, h = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local seen, score = ARGV[a + 4], ARGV[a + 5]
  k, a = k + 2, a + 5
  local at = call('ZSCORE', due, gid)
  if header(key) ~= read or not at or tonumber(at) ~= tonumber(seen) then
    return 'C'
  end
  call('HSET', key, 'h', h)
  call('ZADD', due, score, gid)
  return '1'
end

-- Moves an entry of the due ones whose global cannot be read.
local function postpone()
  local due, gid, score = KEYS[k + 1], ARGV[a + 1], ARGV[a + 2]
  k, a = k + 1, a + 2
  call('ZADD', due, 'XX', score, gid)
  return '1'
end

-- Puts an unfinished global among the due ones if it is missing there; takes a gid that is no
-- global any more out of its list.
local function mend()
  local key, due, list, totals = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  local gid, score = ARGV[a + 1], ARGV[a + 2]
  k, a = k + 4, a + 2
  local stored = header(key)
  if not stored then
    unlist(totals, list, gid)
  elseif is_final(stored) or call('ZADD', due, 'NX', score, gid) == 0 then
    return 'C'
  end
  return '1'
end

-- Counts a list anew.
local function recount()
  local list, totals = KEYS[k + 1], KEYS[k + 2]
  k = k + 2
  local count = call('ZCARD', list)
  if count > 0 then
    call('HSET', totals, string.sub(list, -2), count)
  else
    call('HDEL', totals, string.sub(list, -2))
  end
  return '1'
end

-- Deletes a finished global.
local function delete()
  local key, ended, list, totals = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  local gid, state = ARGV[a + 1], ARGV[a + 2]
  k, a = k + 4, a + 2
  local stored = header(key)
  if stored and (string.sub(stored, 2, 19) ~= state or not is_final(stored)) then
    return 'C'
  end
  call('ZREM', ended, gid)
  unlist(totals, list, gid)
  if not stored then
    return 'N'
  end
  call('DEL', key)
  return '1'
end

-- Takes a gid out of an index if there is no such global, or (of the due ones) if it has ended.
local function drop()
  local key, index = KEYS[k + 1], KEYS[k + 2]
  local gid, of_due = ARGV[a + 1], ARGV[a + 2]
  k, a = k + 2, a + 2
  local stored = header(key)
  if stored and not (of_due == '1' and is_final(stored)) then
    return 'C'
  end
  call('ZREM', index, gid)
  return '1'
end

local function value()
  local values, names, cats = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local cat, name, expected, now = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local version, text = ARGV[a + 5], ARGV[a + 6]
  k, a = k + 3, a + 6
  local stored = call('HGET', values, name)
  local created = now
  if stored then
    if expected == '0' then
      return 'E'
    end
    local number, since = string.match(stored, '^(%d+) (%-?%d+) ')
    if number ~= expected then
      return 'C'
    end
    created = since
  elseif expected ~= '0' then
    return 'N'
  end
  if version == '' then
    call('HDEL', values, name)
    call('ZREM', names, name)
    if call('EXISTS', values) == 0 then
      call('SREM', cats, cat)
    end
  else
    call('HSET', values, name, version .. ' ' .. created .. ' ' .. now .. ' ' .. text)
    call('ZADD', names, 0, name)
    call('SADD', cats, cat)
  end
  return '1'
end

local verbs = {
  C = create, U = update, V = move, L = lease, P = pick, S = postpone, M = mend, X = delete,
  D = drop, K = value, T = recount,
}
while a < #ARGV do
  a = a + 1
  results[#results + 1] = verbs[ARGV[a]]()
end
results = table.concat(results)
call('SET', KEYS[1], ARGV[1] .. ' ' .. results, 'PX', ARGV[2])
return results
