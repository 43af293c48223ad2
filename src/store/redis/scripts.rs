//! The Lua that keeps a session, its principal's index and the count of ends in step.
//!
//! Order matters when Redis is out of memory: it refuses a script at its first command that may
//! grow memory, unless the script has written before. Ends therefore delete first, extensions set
//! the lifetime first, and both go through; a creation writes its record first and is refused. An index
//! may name sessions that are gone; its readers check. Scripts change a record only in its head
//! (`store::record`), whose offsets are those of [`HEAD`].

use redis::Script;

/// The prepared scripts.
pub(super) struct Scripts {
    /// Keys: session, index, not-before, control. See [`CREATE`] for arguments and answers.
    pub(super) create: Script,
    /// Keys: control, sessions…; arguments: those of [`END`], then ids….
    pub(super) end: Script,
    /// Keys: index, not-before, control. Answers the count of ended sessions and all ids.
    pub(super) end_principal: Script,
    /// Keys: session; arguments: seen, new end or 0, now, kept, prefix of indexes. Answers 1, 0 if gone, or
    /// the negative version of a record that this build cannot read.
    pub(super) touch: Script,
    /// Keys: session; arguments: turn, verifier, agent, grace, now. Answers a word and the record.
    pub(super) rotate: Script,
}

// Offsets of Lua strings begin with 1, those of SETRANGE with 0.
const HEAD: &str = r"
local function expires_of(head) return (struct.unpack('>I6', head, 2)) end
local function handle_of(head) return string.sub(head, 34, 55) end
";

// Table unpacking and messages are chunked: Lua's stack holds about 8000 values, and one message
// should not block the channel.
const PUBLISH: &str = r"
local function publish(ctl, channel, nonce, head, ids)
  for from = 1, #ids, 500 do
    local n = redis.call('HINCRBY', ctl, 'seq', 1)
    redis.call('HSET', ctl, 'last', nonce)
    local chunk = table.concat(ids, ',', from, math.min(from + 499, #ids))
    redis.call('PUBLISH', channel, '1 ' .. string.format('%.0f', n) .. ' ' .. nonce .. ' ' .. head .. ' ' .. chunk)
  end
end
";

// What ended is filed under another key, with why and when before its record, for as long as `kept`
// says; its index forgets the ones that have lapsed a few at a time. One whose time had passed by itself
// stays where it is. Answers 1 if the session lived.
const FILE: &str = r"
local function file(end_of, id)
  local key = end_of.sessions .. id
  local record = end_of.kept > 0 and redis.call('GET', key) or redis.call('GETRANGE', key, 0, 54)
  if not record or #record < 55 then redis.call('DEL', key) return 0 end
  if end_of.kept > 0 and expires_of(record) <= end_of.at then return 0 end
  redis.call('DEL', key)
  redis.call('ZREM', end_of.indexes .. handle_of(record), id)
  if end_of.kept > 0 then
    redis.call('SET', end_of.ended .. id, end_of.why .. record, 'PX', end_of.kept)
    local index = end_of.ended_indexes .. handle_of(record)
    redis.call('ZADD', index, 0, id)
    redis.call('PEXPIRE', index, end_of.kept)
    for _, old in ipairs(redis.call('ZRANGE', index, 0, 9)) do
      if redis.call('EXISTS', end_of.ended .. old) == 0 then redis.call('ZREM', index, old) end
    end
  end
  return 1
end
local function end_of(from)
  return {sessions = ARGV[from], indexes = ARGV[from + 1], ended = ARGV[from + 2], ended_indexes = ARGV[from + 3],
    why = ARGV[from + 4], at = struct.unpack('>I6', ARGV[from + 4], 2), kept = tonumber(ARGV[from + 5])}
end
";

const END: &str = r"
local filing, ids = end_of(4), {}
for i = 2, #KEYS do
  ids[#ids + 1] = ARGV[i + 8]
  file(filing, ARGV[i + 8])
end
publish(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ids)
return #ids
";

const CREATE: &str = r"
local record, ttl, now, authenticated, cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local id, filing = ARGV[6], end_of(10)
local barred = redis.call('GET', KEYS[3])
if barred and authenticated <= tonumber(barred) then return {'superseded'} end
if not redis.call('SET', KEYS[1], record, 'PX', ttl, 'NX') then return {'taken'} end
redis.call('ZADD', KEYS[2], 0, id)
if redis.call('PTTL', KEYS[2]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[2], ttl) end
if redis.call('ZCARD', KEYS[2]) <= cap then return {'stored'} end
local live = {}
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if other ~= id then
    local head = redis.call('GETRANGE', filing.sessions .. other, 0, 6)
    if #head < 7 or expires_of(head) <= now then
      redis.call('ZREM', KEYS[2], other)
    else
      live[#live + 1] = other
    end
  end
end
local answer, evicted = {'stored'}, {}
for i = 1, math.min(#live, #live + 1 - cap) do
  file(filing, live[i])
  evicted[i], answer[i + 1] = live[i], live[i]
end
publish(KEYS[4], ARGV[7], ARGV[8], ARGV[9], evicted)
return answer
";

const END_PRINCIPAL: &str = r"
local not_before, bar_kept, filing = ARGV[4], ARGV[5], end_of(6)
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
local ended = 0
if filing.kept > 0 then
  for _, id in ipairs(ids) do ended = ended + file(filing, id) end
else
  for from = 1, #ids, 500 do
    local keys = {}
    for i = from, math.min(from + 499, #ids) do keys[#keys + 1] = filing.sessions .. ids[i] end
    ended = ended + redis.call('UNLINK', unpack(keys))
  end
  redis.call('DEL', KEYS[1])
end
local barred = redis.call('GET', KEYS[2])
if not barred or tonumber(barred) < tonumber(not_before) then redis.call('SET', KEYS[2], not_before, 'PX', bar_kept) end
publish(KEYS[3], ARGV[1], ARGV[2], ARGV[3], ids)
return {ended, ids}
";

const TOUCH: &str = r"
local head = redis.call('GETRANGE', KEYS[1], 0, 54)
if head == '' then return 0 end
if string.byte(head) > 1 then return -string.byte(head) end
local expires, seen, extended = struct.unpack('>I6I6I6', head, 2)
local now, extend_to, kept = tonumber(ARGV[3]), tonumber(ARGV[2]), tonumber(ARGV[4])
if expires <= now then return 0 end
seen, extended = math.max(seen, tonumber(ARGV[1])), math.max(extended, extend_to)
if extend_to > expires then
  expires = extend_to
  local ttl = expires - now + kept
  redis.call('PEXPIRE', KEYS[1], ttl)
  local index = ARGV[5] .. string.sub(head, 34, 55)
  if redis.call('PTTL', index) < ttl then redis.call('PEXPIRE', index, ttl) end
end
redis.call('SETRANGE', KEYS[1], 1, struct.pack('>I6I6I6', expires, seen, extended))
return 1
";

const ROTATE: &str = r"
local record = redis.call('GET', KEYS[1])
if not record then return {'gone', false} end
if string.byte(record) > 1 then return {'newer', record} end
if expires_of(record) <= tonumber(ARGV[5]) or string.sub(record, 56, 79) ~= ARGV[2] then return {'gone', false} end
local turn, since = struct.unpack('>I4I6', record, 20)
local agent, presented, grace = string.sub(record, 30, 33), tonumber(ARGV[1]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if presented >= turn then
  redis.call('SETRANGE', KEYS[1], 19, struct.pack('>I4I6', presented + 1, now) .. ARGV[3])
  return {presented == turn and 'next' or 'ahead', redis.call('GET', KEYS[1])}
end
local again = presented == turn - 1 and grace > 0 and now - since <= grace and agent == ARGV[3]
return {again and 'repeated' or 'reused', record}
";

impl Scripts {
    /// Returns all scripts; each is loaded into Redis when it is first needed there.
    pub(super) fn new() -> Self {
        let ending = |body: &str| Script::new(&format!("{HEAD}{PUBLISH}{FILE}{body}"));
        Self {
            create: ending(CREATE),
            end: ending(END),
            end_principal: ending(END_PRINCIPAL),
            touch: Script::new(TOUCH),
            rotate: Script::new(&format!("{HEAD}{ROTATE}")),
        }
    }
}
