/* HTTP/2 sessions; see the header. */
#include "dispatch/h2.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"

struct dispatch *h2_dispatch(const struct h2 *h2) {
    return h2->connection->caller.dispatch;
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

void h2_end(struct h2 *h2, uint32_t error) {
    h2->ending = true;
    if (nghttp2_session_terminate_session(h2->session, error) != 0)
        h2->broken = true;
}

bool h2_allow(struct h2 *h2, struct allowance *allowance, uint64_t burst, uint64_t rate) {
    uint64_t now = h2_dispatch(h2)->loop.now_us, back = (now - allowance->at_us) * rate;

    allowance->at_us = now;
    allowance->used_us = allowance->used_us > back ? allowance->used_us - back : 0;
    allowance->used_us += 1000000;
    if (allowance->used_us <= burst * 1000000)
        return true;
    count_one(&h2_dispatch(h2)->counters.node->http_malformed);
    h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM);
    return false;
}

/* ---- what nghttp2 tells ------------------------------------------------------------------------------------------- */

static struct h2_stream *find(struct h2 *h2, int32_t id) {
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user) {
    struct h2 *h2 = user;
    (void)session;

    switch ((int)head->type) {
    case NGHTTP2_HEADERS:
        h2->in_headers = true;
        h2->continuations = 0;
        h2->began_us = h2_dispatch(h2)->loop.now_us;
        break;
    case NGHTTP2_CONTINUATION:
        if (++h2->continuations > H2_CONTINUATIONS_MAX) {
            count_one(&h2_dispatch(h2)->counters.node->http_malformed);
            h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM);
        }
        break;
    case NGHTTP2_DATA:
        if (head->length == 0 && !(head->flags & NGHTTP2_FLAG_END_STREAM))
            (void)h2_allow(h2, &h2->idle, H2_IDLE_BURST, H2_IDLE_RATE);
        break;
    case NGHTTP2_RST_STREAM:
        (void)h2_allow(h2, &h2->resets, H2_RESETS_BURST, H2_RESETS_RATE);
        break;
    case NGHTTP2_SETTINGS:
        if (!(head->flags & NGHTTP2_FLAG_ACK))
            (void)h2_allow(h2, &h2->settings, H2_SETTINGS_BURST, H2_SETTINGS_RATE);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        break;
    default: /* PING, PRIORITY; unknown types do not come here and cost no more than their bytes */
        (void)h2_allow(h2, &h2->idle, H2_IDLE_BURST, H2_IDLE_RATE);
        break;
    }
    return h2->ending ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *stream;

    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    stream = h2_stream_new(h2, frame->hd.stream_id);
    if (stream == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    (void)nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
    struct h2_stream *stream = find(user, frame->hd.stream_id);
    (void)session;
    (void)flags;
    if (stream != NULL && stream->phase == H2_HEADERS)
        h2_stream_header(
            stream, (struct wire_slice){name, (uint32_t)name_size}, (struct wire_slice){value, (uint32_t)value_size});
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *user) {
    struct h2_stream *stream = find(user, id);
    (void)flags;
    if (stream != NULL)
        h2_stream_data(stream, data, size);
    /* It is in the budget by now, or forgotten: the peer may send as much again. */
    return nghttp2_session_consume(session, id, size) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *stream;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        stream = find(h2, frame->hd.stream_id);
        if (frame->hd.type == NGHTTP2_HEADERS)
            h2->in_headers = false;
        if (stream != NULL && stream->phase == H2_HEADERS)
            h2_stream_begin(stream);
        if (stream != NULL && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            h2_stream_finish(stream);
        break;
    case NGHTTP2_SETTINGS:
        h2->settled = h2->settled || !(frame->hd.flags & NGHTTP2_FLAG_ACK);
        break;
    case NGHTTP2_PING:
        if (!h2->leaving || !(frame->hd.flags & NGHTTP2_FLAG_ACK))
            break;
        h2->left = true;
        (void)nghttp2_submit_goaway(
            session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR, NULL, 0);
        break;
    default:
        break;
    }
    return 0;
}

/* A header block that nghttp2 itself refuses ends without on_frame. */
static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user) {
    struct h2 *h2 = user;
    (void)session;
    (void)error;
    if (frame->hd.type == NGHTTP2_HEADERS)
        h2->in_headers = false;
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *stream;

    /* Behind the notice, or it would be answered before that was read. */
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.last_stream_id == INT32_MAX)
        (void)nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, NULL);
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        (void)h2_allow(h2, &h2->resets, H2_RESETS_BURST, H2_RESETS_RATE);
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    stream = find(h2, frame->hd.stream_id);
    /* Answered before the peer has said all (RFC 9113, 8.1): the rest is not wanted. */
    if (stream != NULL && !stream->ended)
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *stream = find(h2, id);
    (void)error;
    (void)session;
    if (stream == NULL)
        return 0;
    list_remove(&stream->node);
    list_push_back(&h2->gone, &stream->node);
    return 0;
}

/* ---- from the beginning to the end -------------------------------------------------------------------------------- */

static int open_session(struct h2 *h2) {
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADERS_MAX},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 0},
    };
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    int r = -1;

    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return -ENOMEM;
    if (nghttp2_option_new(&option) != 0) {
        nghttp2_session_callbacks_del(callbacks);
        return -ENOMEM;
    }
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_max_outbound_ack(option, H2_ACKS_MAX);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    if (nghttp2_session_server_new2(&h2->session, callbacks, h2, option) == 0)
        r = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings) - 1);
    if (r == 0)
        r = nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, H2_WINDOW);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return r == 0 ? 0 : -ENOMEM;
}

int h2_begin(struct http_connection *connection) {
    struct dispatch *dispatch = connection->caller.dispatch;
    struct h2 *h2;

    if (dispatch->http.n_h2 >= dispatch->http.h2_max) {
        count_one(&dispatch->counters.node->connections_refused);
        return -EMFILE;
    }
    h2 = calloc(1, sizeof(*h2));
    if (h2 == NULL)
        return -ENOMEM;
    h2->connection = connection;
    dispatch->http.n_h2++;
    list_init(&h2->streams);
    list_init(&h2->gone);
    h2->began_us = h2->used_us = h2_dispatch(h2)->loop.now_us;
    h2->load = calloc(1, sizeof(*h2->load));
    if (h2->load == NULL || open_session(h2) < 0) {
        h2_free(h2);
        return -ENOMEM;
    }
    connection->h2 = h2;
    if (h2_dispatch(h2)->leave_drained || h2_dispatch(h2)->handover.giving)
        h2_drain(h2);
    return 0;
}

void h2_free(struct h2 *h2) {
    if (h2 == NULL)
        return;
    for (struct list *lists[] = {&h2->streams, &h2->gone}, **at = lists; at < lists + ARRAY_SIZE(lists); at++) {
        struct list *node;
        while ((node = list_pop_front(*at)) != NULL) {
            struct h2_stream *stream = list_entry(node, struct h2_stream, node);
            caller_done(&stream->caller);
            h2_stream_free(stream);
        }
    }
    nghttp2_session_del(h2->session);
    caller_load_done(h2->load);
    if (h2->output != NULL)
        budget_give_back(&h2_dispatch(h2)->budget, h2->output_size);
    free(h2->output);
    h2_dispatch(h2)->http.n_h2--;
    free(h2);
}

void h2_drain(struct h2 *h2) {
    if (h2->leaving || nghttp2_submit_shutdown_notice(h2->session) != 0)
        return;
    h2->leaving = true;
    h2_kick(h2);
}

bool h2_flushed(const struct h2 *h2) {
    if (h2->output != NULL)
        return false;
    for (const struct list *node = h2->streams.next; node != &h2->streams; node = node->next)
        if (list_entry(node, struct h2_stream, node)->phase == H2_ANSWER)
            return false;
    return true;
}

void h2_goodbye(struct h2 *h2) {
    h2_end(h2, NGHTTP2_NO_ERROR);
    h2_flush(h2);
}
