"""What the OpenAPI document says in words of its own, before the routes."""

from typing import Any

DESCRIPTION = """
Make images and videos with the models of [fal.ai](https://fal.ai), paid from a balance of tokens.

## The tour

1. `POST /auth` gives a user an API key. Keep it: it is shown once. `POST /keys` makes further ones that may do less.
2. The payment provider calls `POST /webhook/topup` when the user has paid; the balance grows. It calls
   `POST /webhook/reversal` when a payment was refunded or disputed; the balance shrinks, also to below zero.
3. `GET /models` says what can be made, with which parameters and at which price. It needs no key.
4. `POST /quotes` says what one generation costs, and promises that price for ten minutes. It takes nothing.
5. `POST /generations/...` takes the cost from the balance and answers 202 with a job.
6. `GET /generations/{job_id}/stream` follows the job to its end, and `GET /generations/{job_id}?wait=30` answers at its
   next change. `GET /events` has everything that happened, and misses nothing; `GET /events/stream` tells it at once.
7. `POST /generations/{job_id}/cancel` stops a job. What was not made is not charged.

Steps 3 and 4 may be left out: a generation without `model` is made by the default of its type, and one without `quote`
costs what it costs at that moment.

On this page, press **Authorize**, paste the key into *ApiKey*, and try the routes. Elsewhere, send it as `X-API-Key`,
`Authorization: Bearer <key>` or `Authorization: Key <key>`, whichever your client knows. Two different keys at once are
refused.

## Status of a job

| status | meaning |
|---|---|
| `QUEUED` | accepted and paid, not known to be at fal yet |
| `SUBMITTED` | fal has it |
| `IN_QUEUE` | it waits at fal |
| `IN_PROGRESS` | fal works on it |
| `CANCELING` | you asked to stop it, fal has not confirmed yet |
| `COMPLETED` | the result is there; final |
| `FAILED` | there is no result, and the tokens are back; final |
| `CANCELED` | it was stopped, and the tokens are back; final |

A job never has both a result and a refund.

`GET /generations` lists your jobs, the newest first, with `status`, `type` and `model` as filters. To read all that
fit, go on with `next_cursor` until it is null: with a filter a page may be short or empty and still have one. Each job
is then there once, however many are added meanwhile. `include=input` adds the parameters that a job was started with.

## Models

`model` is the id of the model at fal, the same everywhere. Each model takes its own parameters, and no others:
`parameters` in `GET /models/{model}` is a JSON Schema of them, and `example` a body that works as it is. The same name
means the same at every model: `duration` is whole seconds, `image_url` the first picture, `generate_audio` the sound.
What you leave out is filled in with the default that the schema names. While a model `is_paused`, nothing is
submitted to it, because fal refuses it or cannot be reached: new jobs wait, or get 503.

## Files of yours

Where a parameter takes a picture or a sound, it takes one of these:

- a public `https` or `http` URL, which fal opens when it makes the generation;
- `file:<file_id>`: a file that you sent to `POST /files` before, once for as many generations as you like;
- `output:<job_id>/0`: the first output of an earlier generation of yours;
- a `data:` URI in base64, of up to 5 MiB. It is kept as a file until a day after its generation.

What you send is turned upright and freed of what tells where, when and with what it was made. A file that the model
does not take is refused before anything is debited. No model takes a film yet: films can be kept, and not be used.
An upload costs nothing, and needs a balance of at least one token.

## Prices

The operator of this service sets them: `GET /models` has them by line, with the cheapest and the dearest generation of
each model, and `POST /quotes` has the price of one generation. A line counts images, megapixels, seconds or runs,
and its tokens are `unit_tokens` times `factor` times `quantity`, rounded up once. The cost is their sum. It is in the
answer that accepts a job, with its lines in `price`, also as `X-Cost-Tokens` beside `X-Balance-Tokens`, what is left.

- A `quote` from `POST /quotes` makes the generation cost exactly what was promised, until `valid_until`. It holds for
  one account, one model and the parameters that its price follows from; prompt and pictures may change.
- `max_cost_tokens` refuses what would cost more.
- A repeat with the same `Idempotency-Key` costs nothing more, whatever `quote` and `max_cost_tokens` say by then, and
  whether or not its model is still sold.
- What was paid for and not delivered is refunded, line by line: an image that is missing or that fal's safety checker
  blanked, and size that an image does not have, where it was priced by size and fal tells it. `billing` of a final job
  has what was charged and refunded of each line.

## Files of a generation

`outputs` of a job has a link of ours to each file, from the moment of the job's end: it needs no key, and is good until
`expires_at`. First it passes through what fal keeps; some seconds later our own copy is there, which is byte for byte
what fal delivered, with its `sha256`, and `output.stored` tells of it. `Range`, `HEAD` and `ETag` are answered, so that
players can seek; `&download=1` behind a link has a browser save the file. `DELETE /generations/{job_id}/media` deletes
the files of a job before their time; their links answer 410 from then on, with when and why.

## Keys

The key of `POST /auth` may do everything. It makes others with `POST /keys`, one for each program or person, so that
each may do, spend and last as little as it needs, and can end alone:

| scope | what it is for |
|---|---|
| `generate` | start and cancel generations, keep and delete files |
| `read` | look at generations, events, balance and ledger, ask for quotes |
| `manage` | keys, webhooks, and the account itself |

Starting and cancelling answer with the job that they concern, and starting with the balance, whether or not the key has
`read`.

A `budget` is so many tokens each `day` or `month` of UTC, or `ever`. It is checked with the debit: never exceeded by a
token, however many requests come at once, and 402 `budget_exceeded` has `budget_tokens`, `spent_tokens` and
`renews_at`. What is refunded comes back to the budget while its period lasts. Only a key with every scope, no budget
and no expiry makes, changes, rotates and deletes keys, and never itself; any key sees itself at `GET /keys/current`,
and ends itself with `DELETE`. A secret is shown once. Another one comes with `POST /keys/{key_id}/rotate`, which lets
the old one work for an overlap.

## Webhooks

Whatever is in `GET /events` also comes to your own servers, by POST. `POST /webhook-endpoints` adds one for the types
of events that it names, and `webhook_url` on a generation names one for the end of that job. Messages and signatures
are those of [Standard Webhooks](https://www.standardwebhooks.com): any of its libraries verifies a message with the
secret of the endpoint, or with that of `GET /webhook-secret` where a generation named the URL. Without one: the base64
of the HMAC-SHA256 of `webhook-id`, `.`, `webhook-timestamp`, `.` and the body as it came, by the bytes behind `whsec_`,
must be in `webhook-signature`, which is `v1,` and that; two secrets in force sign twice, with a space in between.
Refuse what was signed more than five minutes ago.

Each event comes at least once: keep `webhook-id`, which is the same in each attempt, and pass over what you know. Those
of one job come in order, an event that was given up aside; others come in any. Answer 2xx within 15 seconds and work
afterwards. Anything else, a redirect as well, is tried again after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24, 24 and
24 h, or later where `Retry-After` asks for it, twelve times in all. While an endpoint fails it is tried less often.
An endpoint that answers 410, or where every attempt failed for five days, is disabled: enable it with `PATCH`, and
`POST .../replay` brings what it missed. `GET .../deliveries` has each attempt and its answer,
`POST .../deliveries/{event_id}/redeliver` sends one again, and `POST .../test` sends an event that means nothing.

A message has links and never media, and is smaller than 20 kB: where the job is larger, `is_shortened` says that its
`result` was left out. URLs are https, name a host and not an IP address, and lead to public addresses. Names are
looked up for each attempt, and no redirect is followed.

## Errors

Every error is `application/problem+json` (RFC 9457), with a `code` that does not change, a `detail` for people,
and the `request_id` that every answer also carries in `X-Request-Id`. A 422 lists in `errors` what to mend:
`unknown_model` at `/model` names the models that fit, and `combination_not_allowed` stands at the parameter to change
first. Where numbers help, they are there as fields: 402 `insufficient_balance` has `required_tokens`, `balance_tokens`
and `missing_tokens`, 409 `price_exceeds_maximum` has `cost_tokens`. Neither takes anything, nor does 409
`quote_not_valid`: ask for a new quote, or leave it out.
Besides what each route documents: 400 `invalid_http` and `invalid_host` for what is no request of HTTP/1.1,
404 `not_found` for an unknown path, 405 `method_not_allowed`, 408 `request_timeout` for what comes too slowly,
431 `request_headers_too_large` above 32 KiB of headers, 500 `internal_error`, which is our fault, and
503 `too_many_connections`. Whatever answers to GET answers to HEAD, with the same headers.
A body that was not there as a whole when it was refused ends the connection.
On 429 nothing was done: `Retry-After` says when to ask again, and `RateLimit-Policy` which limit of yours was reached.
On 503 nothing was done: wait as `Retry-After` says and ask again. Only where its code is `outcome_unknown` that is not
known: ask again with the same `Idempotency-Key` or event id, and it is done once.

Bodies are read strictly: an unknown field is refused, and `true` and `"5"` are no numbers.
"""

TAGS: list[dict[str, Any]] = [
    {"name": "Accounts", "description": "The first API key, and balances."},
    {"name": "Keys", "description": "The keys of an account: what each may do and spend, until when."},
    {"name": "Top-up", "description": "Called by the payment provider, not by users."},
    {"name": "Generations", "description": "Start images and videos, follow them, stop them."},
    {"name": "Files", "description": "Pictures, films and sounds of your own. No model takes a film yet."},
    {"name": "Media", "description": "The files behind the links of jobs."},
    {"name": "Events", "description": "What happened, in an order that never changes."},
    {"name": "Webhooks", "description": "Your servers that are told what happens, and what was delivered to them."},
    {"name": "Models", "description": "What is sold, with parameters and prices; what one generation would cost."},
    {"name": "Provider", "description": "Called by fal, not by users."},
    {"name": "System", "description": "For load balancers and monitoring."},
]
