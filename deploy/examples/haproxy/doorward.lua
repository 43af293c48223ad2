-- The action lua.doorward_verify: asks Doorward about a request, then lets it through with the
-- identity that Doorward names, or gives Doorward's answer to the client.
--
-- Setting txn.doorward to "allowed" is the last thing that it does, and haproxy.cfg denies what has
-- it not: an error in here, or Doorward being away, lets nothing through.

local url = assert(os.getenv("DOORWARD_URL"), "DOORWARD_URL is not set")
local cookie_name = assert(os.getenv("DOORWARD_COOKIE"), "DOORWARD_COOKIE is not set")

-- What Doorward's decision depends on besides method and path.
local asked_with = {
    "authorization", "cookie", "origin", "sec-fetch-site", "upgrade", "user-agent",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
}
local identity = { "x-user-id", "x-client-id", "x-session-id", "x-user-roles", "x-user-kind", "x-actor-id" }
-- Of Doorward's refusals.
local answered_with = { "cache-control", "content-type", "retry-after", "www-authenticate", "x-request-id" }

-- HAProxy counts the values of a header from 0, its HTTP client from 1. Every value goes on:
-- whether two of them are one too many is for Doorward to say.
local function question(txn)
    local received, asked = txn.http:req_get_headers(), {}
    for _, name in ipairs(asked_with) do
        for index = 0, #(received[name] or {}) do
            local value = received[name] and received[name][index]
            if value then
                asked[name] = asked[name] or {}
                table.insert(asked[name], value)
            end
        end
    end
    asked["x-original-method"] = { txn.f:method() }
    asked["x-original-uri"] = { txn.f:pathq() }
    return asked
end

-- The application gets what the client sent without the session cookie.
local function without_session(cookies)
    local left = {}
    for pair in cookies:gmatch("[^;]+") do
        pair = pair:match("^%s*(.-)%s*$")
        if pair ~= "" and pair:match("^[^=]*") ~= cookie_name then
            table.insert(left, pair)
        end
    end
    return table.concat(left, "; ")
end

local function refuse(txn, answer)
    local reply = txn:reply({ status = answer.status, body = answer.body })
    for _, name in ipairs(answered_with) do
        for _, value in pairs(answer.headers[name] or {}) do
            reply:add_header(name, value)
        end
    end
    txn:done(reply)
end

core.register_action("doorward_verify", { "http-req" }, function(txn)
    -- Milliseconds, and HAProxy's client tries four times.
    local answer = core.httpclient():get({ url = url .. "/_doorward/verify", headers = question(txn), timeout = 1250 })
    if answer.status ~= 200 then
        return refuse(txn, answer)
    end
    local cookies = txn.http:req_get_headers()["cookie"]
    txn.http:req_del_header("authorization")
    txn.http:req_del_header("cookie")
    for index = 0, #(cookies or {}) do
        local left = cookies and without_session(cookies[index]) or ""
        if left ~= "" then
            txn.http:req_add_header("cookie", left)
        end
    end
    for _, name in ipairs(identity) do
        local value = answer.headers[name] and answer.headers[name][0]
        txn.http:req_del_header(name)
        if value and value ~= "" then
            txn.http:req_set_header(name, value)
        end
    end
    txn:set_var("txn.doorward", "allowed")
end, 0)
