//! The Lua that keeps a session, its principal's index and the count of revocations in step.
//!
//! Order matters when Redis is out of memory: it refuses a script at its first command that may
//! grow memory, unless the script has written before. Revocations therefore delete first, extensions set
//! the lifetime first, and both go through; a creation writes its record first and is refused. The index may name sessions that
//! are gone; whoever reads it checks.

use redis::Script;

/// The prepared scripts.
pub(super) struct Scripts {
    /// Keys: session, index, not-before, control. See [`CREATE`] for arguments and answers.
    pub(super) create: Script,
    /// Keys: control, sessions…; arguments: channel, nonce, head, ids….
    pub(super) revoke: Script,
    /// Keys: index, not-before, control. Answers the count of ended sessions and all ids.
    pub(super) revoke_principal: Script,
    /// Keys: session, index; arguments: record, ttl, id, index entry. Answers 1, or 0 if gone.
    pub(super) extend: Script,
}

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

const REVOKE: &str = r"
local ids = {}
for i = 2, #KEYS do
  redis.call('DEL', KEYS[i])
  ids[#ids + 1] = ARGV[i + 2]
end
publish(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ids)
return #ids
";

const CREATE: &str = r"
local record, ttl, now, authenticated, cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local id, entry, prefix = ARGV[6], ARGV[7], ARGV[8]
local barred = redis.call('GET', KEYS[3])
if barred and authenticated <= tonumber(barred) then return {'superseded'} end
if not redis.call('SET', KEYS[1], record, 'PX', ttl, 'NX') then return {'taken'} end
redis.call('HSET', KEYS[2], id, entry)
if redis.call('PTTL', KEYS[2]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[2], ttl) end
if redis.call('HLEN', KEYS[2]) <= cap then return {'stored'} end
local entries, live = redis.call('HGETALL', KEYS[2]), {}
for i = 1, #entries, 2 do
  local created, ends = string.match(entries[i + 1], '^(%d+):(%d+)$')
  if entries[i] ~= id then
    if not ends or tonumber(ends) <= now or redis.call('EXISTS', prefix .. entries[i]) == 0 then
      redis.call('HDEL', KEYS[2], entries[i])
    else
      live[#live + 1] = {entries[i], tonumber(created)}
    end
  end
end
table.sort(live, function(a, b) if a[2] ~= b[2] then return a[2] < b[2] end return a[1] < b[1] end)
local answer, evicted = {'stored'}, {}
for i = 1, math.min(#live, #live + 1 - cap) do
  redis.call('DEL', prefix .. live[i][1])
  redis.call('HDEL', KEYS[2], live[i][1])
  evicted[i], answer[i + 1] = live[i][1], live[i][1]
end
publish(KEYS[4], ARGV[9], ARGV[10], ARGV[11], evicted)
return answer
";

const REVOKE_PRINCIPAL: &str = r"
local not_before, kept, prefix = ARGV[1], ARGV[2], ARGV[3]
local ids = redis.call('HKEYS', KEYS[1])
local ended = 0
for from = 1, #ids, 500 do
  local keys = {}
  for i = from, math.min(from + 499, #ids) do
    keys[#keys + 1] = prefix .. ids[i]
  end
  ended = ended + redis.call('UNLINK', unpack(keys))
end
redis.call('DEL', KEYS[1])
local barred = redis.call('GET', KEYS[2])
if not barred or tonumber(barred) < tonumber(not_before) then redis.call('SET', KEYS[2], not_before, 'PX', kept) end
publish(KEYS[3], ARGV[4], ARGV[5], ARGV[6], ids)
return {ended, ids}
";

const EXTEND: &str = r"
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1
";

impl Scripts {
    /// Returns all scripts; each is loaded into Redis when it is first needed there.
    pub(super) fn new() -> Self {
        let publishing = |body: &str| Script::new(&format!("{PUBLISH}{body}"));
        Self {
            create: publishing(CREATE),
            revoke: publishing(REVOKE),
            revoke_principal: publishing(REVOKE_PRINCIPAL),
            extend: Script::new(EXTEND),
        }
    }
}
