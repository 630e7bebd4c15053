//! The tables as both databases have them; a test compares this file with what each database says of itself.
//! Knows nothing of what the rows mean.

diesel::table! {
    /// One row per Task: its present state, the columns that searches and the clock need, and what its search rows say.
    tasks (tenant, id) {
        tenant -> Text,
        id -> Text,
        version -> BigInt,
        last_updated -> BigInt,
        status -> Text,
        owner -> Nullable<Text>,
        patient -> Nullable<Text>,
        created_by -> Text,
        due -> Nullable<BigInt>,
        deleted -> Bool,
        state -> Text,
        indexed -> Text,
    }
}

diesel::table! {
    /// Who may see a Task: its people by reference, its teams as `team:CODE`.
    task_viewers (tenant, viewer, task) {
        tenant -> Text,
        viewer -> Text,
        task -> Text,
    }
}

diesel::table! {
    /// The documents whose reference from a Task took effect.
    task_documents (tenant, document, task) {
        tenant -> Text,
        document -> Text,
        task -> Text,
    }
}

diesel::table! {
    /// Which Tasks are part of which.
    task_parents (tenant, parent, task) {
        tenant -> Text,
        parent -> Text,
        task -> Text,
    }
}

diesel::table! {
    /// One row per DocumentReference: its present state.
    documents (tenant, id) {
        tenant -> Text,
        id -> Text,
        version -> BigInt,
        last_updated -> BigInt,
        status -> Text,
        patient -> Nullable<Text>,
        created_by -> Text,
        deleted -> Bool,
        state -> Text,
        indexed -> Text,
        class -> Nullable<Text>,
        created -> Nullable<BigInt>,
        turns -> Nullable<BigInt>,
        disposed_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Every version of every Task and DocumentReference as it was sent out. Never changed.
    resource_versions (tenant, kind, id, version) {
        tenant -> Text,
        kind -> Text,
        id -> Text,
        version -> BigInt,
        last_updated -> BigInt,
        method -> Text,
        body -> Binary,
    }
}

diesel::table! {
    search_tokens (tenant, kind, name, code, id, system) {
        tenant -> Text,
        kind -> Text,
        name -> Text,
        code -> Text,
        id -> Text,
        system -> Text,
    }
}

diesel::table! {
    /// `bare` is the id of a relative target, and the whole of an absolute one.
    search_references (tenant, kind, name, bare, id, target) {
        tenant -> Text,
        kind -> Text,
        name -> Text,
        bare -> Text,
        id -> Text,
        target -> Text,
    }
}

diesel::table! {
    /// First and last instant of the range that a value means.
    search_dates (tenant, kind, name, first_at, last_at, id) {
        tenant -> Text,
        kind -> Text,
        name -> Text,
        first_at -> BigInt,
        last_at -> BigInt,
        id -> Text,
    }
}

diesel::table! {
    search_strings (tenant, kind, name, value, id) {
        tenant -> Text,
        kind -> Text,
        name -> Text,
        value -> Text,
        id -> Text,
    }
}

diesel::table! {
    /// One row per stored content: what pins and proves it.
    binaries (tenant, id) {
        tenant -> Text,
        id -> Text,
        created -> BigInt,
        uploaded_by -> Text,
        document -> Nullable<Text>,
        content_type -> Text,
        security_context -> Nullable<Text>,
        size -> BigInt,
        sha1 -> Binary,
        sha256 -> Binary,
        blob_key -> Text,
        blob_version -> Nullable<Text>,
        blob_etag -> Text,
        deleted_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// SHA-256 of the blocks of a Binary, up to 4096 of them, one after the other, in a row.
    binary_blocks (tenant, binary, chunk) {
        tenant -> Text,
        binary -> Text,
        chunk -> BigInt,
        hashes -> Binary,
    }
}

diesel::table! {
    /// What is known of malware in a Binary, and who scans it.
    scans (tenant, id) {
        tenant -> Text,
        id -> Text,
        sha256 -> Binary,
        verdict -> Text,
        signature -> Nullable<Text>,
        engine -> Nullable<Text>,
        scanned_at -> Nullable<BigInt>,
        since -> BigInt,
        tries -> BigInt,
        due_at -> Nullable<BigInt>,
        claimed_by -> Nullable<Text>,
        claimed_until -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Where the blob store and the records differ.
    drift (tenant, name) {
        tenant -> Text,
        name -> Text,
        kind -> Text,
        size -> BigInt,
        found_at -> BigInt,
        seen_at -> BigInt,
    }
}

diesel::table! {
    /// The last complete look at a tenant's content, and when another one was asked for.
    drift_looks (tenant) {
        tenant -> Text,
        began_at -> BigInt,
        ended_at -> BigInt,
        objects -> BigInt,
        bytes -> BigInt,
        asked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    grants (tenant, id) {
        tenant -> Text,
        id -> Text,
        handle -> Text,
        secret_hash -> Nullable<Binary>,
        task -> Text,
        document -> Text,
        content_version -> BigInt,
        binary -> Text,
        sha256 -> Binary,
        origin -> Text,
        max_uses -> BigInt,
        uses -> BigInt,
        time_window -> BigInt,
        issued_at -> BigInt,
        constraints -> Text,
        status -> Text,
        grantee -> Nullable<Text>,
        bound_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
        ended_at -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        task_due -> Nullable<BigInt>,
        revision -> BigInt,
    }
}

diesel::table! {
    redemptions (tenant, id) {
        tenant -> Text,
        id -> Text,
        grant_id -> Text,
        grantee -> Text,
        client -> Text,
        token_key -> Nullable<Text>,
        session -> Nullable<Text>,
        state -> Text,
        cut_reason -> Nullable<Text>,
        opened_at -> BigInt,
        window_end -> BigInt,
        ended_at -> Nullable<BigInt>,
        size -> BigInt,
        bytes_sent -> BigInt,
        sent_up_to -> BigInt,
        streams -> BigInt,
        process -> Nullable<Text>,
        revision -> BigInt,
    }
}

diesel::table! {
    /// The ledger. Rows are added, never changed.
    audit_log (tenant, sequence) {
        tenant -> Text,
        sequence -> BigInt,
        recorded -> BigInt,
        event -> Text,
        outcome -> Text,
        correlation -> Text,
        actor -> Nullable<Text>,
        patient -> Nullable<Text>,
        task -> Nullable<Text>,
        document -> Nullable<Text>,
        binary -> Nullable<Text>,
        grant_id -> Nullable<Text>,
        redemption -> Nullable<Text>,
        entry -> Text,
    }
}

diesel::table! {
    /// One row per sealed row of the audit.
    ledger_leaves (tenant, position) {
        tenant -> Text,
        position -> BigInt,
        sequence -> BigInt,
        salt -> Nullable<Binary>,
        commitment -> Binary,
    }
}

diesel::table! {
    /// Inner nodes of every eighth level of the ledgers' trees.
    ledger_nodes (tenant, level, position) {
        tenant -> Text,
        level -> BigInt,
        position -> BigInt,
        hash -> Binary,
    }
}

diesel::table! {
    /// Signed checkpoints: the newest of each hour.
    ledger_checkpoints (tenant, hour) {
        tenant -> Text,
        hour -> BigInt,
        size -> BigInt,
        signed_at -> BigInt,
        note -> Text,
    }
}

diesel::table! {
    /// What subscribers are to be told.
    outbox (tenant, sequence) {
        tenant -> Text,
        sequence -> BigInt,
        topic -> Text,
        focus -> Text,
        version -> BigInt,
        change -> Text,
        grant_id -> Nullable<Text>,
        at -> BigInt,
        pending -> Bool,
        correlation -> Text,
        trace -> Nullable<Text>,
    }
}

diesel::table! {
    /// One row per Subscription: its present state. `sealed` holds what is secret in it.
    subscriptions (tenant, id) {
        tenant -> Text,
        id -> Text,
        version -> BigInt,
        last_updated -> BigInt,
        status -> Text,
        created_by -> Text,
        deleted -> Bool,
        state -> Text,
        indexed -> Text,
        sealed -> Binary,
    }
}

diesel::table! {
    /// Rises with every change of a tenant's Subscriptions.
    subscription_revisions (tenant) {
        tenant -> Text,
        revision -> BigInt,
    }
}

diesel::table! {
    /// How many events each Subscription has counted.
    subscription_counts (tenant, subscription) {
        tenant -> Text,
        subscription -> Text,
        events -> BigInt,
    }
}

diesel::table! {
    /// How far the deliveries of each are. `eager` where events go out as they come; `due` when it wants to be looked at
    /// without any.
    subscription_courses (tenant, subscription) {
        tenant -> Text,
        subscription -> Text,
        shard -> BigInt,
        eager -> Bool,
        due -> Nullable<BigInt>,
        delivered -> BigInt,
        trying -> Nullable<BigInt>,
        attempts -> BigInt,
        failing_since -> Nullable<BigInt>,
        next_try -> Nullable<BigInt>,
        last_sent -> Nullable<BigInt>,
        problem -> Nullable<Text>,
    }
}

diesel::table! {
    /// The events of each Subscription, numbered without gaps.
    subscription_events (tenant, subscription, number) {
        tenant -> Text,
        subscription -> Text,
        number -> BigInt,
        topic -> Text,
        focus -> Text,
        version -> BigInt,
        change -> Text,
        grant_id -> Nullable<Text>,
        correlation -> Text,
        at -> BigInt,
        trace -> Nullable<Text>,
    }
}

diesel::table! {
    /// What each binding token is for, under its SHA-256.
    binding_tokens (tenant, digest) {
        tenant -> Text,
        digest -> Binary,
        creator -> Text,
        subscriptions -> Text,
        expires_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(subscriptions, subscription_counts, subscription_courses);

diesel::table! {
    /// In which teams an actor was when its token was last validated.
    actors (tenant, actor) {
        tenant -> Text,
        actor -> Text,
        teams -> Text,
        seen -> BigInt,
    }
}

diesel::table! {
    /// What must not be deleted; `lifted_at` where a hold stands no more.
    holds (tenant, id) {
        tenant -> Text,
        id -> Text,
        kind -> Text,
        value -> Text,
        note -> Text,
        placed_at -> BigInt,
        placed_by -> Text,
        until -> Nullable<BigInt>,
        lifted_at -> Nullable<BigInt>,
        lifted_by -> Nullable<Text>,
    }
}

diesel::table! {
    /// Content that is to be deleted from the blob store, or was.
    disposals (tenant, binary) {
        tenant -> Text,
        binary -> Text,
        document -> Nullable<Text>,
        cause -> Text,
        schedule -> Text,
        marked_at -> BigInt,
        due -> BigInt,
        state -> Text,
        state_at -> BigInt,
    }
}

diesel::table! {
    /// What operators revoked in an emergency; `lifted_at` where a block stands no more.
    standing_blocks (tenant, id) {
        tenant -> Text,
        id -> Text,
        kind -> Text,
        value -> Text,
        note -> Text,
        placed_at -> BigInt,
        placed_by -> Text,
        lifted_at -> Nullable<BigInt>,
        lifted_by -> Nullable<Text>,
    }
}

diesel::table! {
    /// People who signed in with a browser.
    sessions (tenant, id) {
        tenant -> Text,
        id -> Text,
        issuer -> Text,
        subject -> Text,
        sid -> Nullable<Text>,
        claims -> Text,
        key -> Binary,
        began_at -> BigInt,
        seen_at -> BigInt,
        ends_at -> BigInt,
    }
}

diesel::table! {
    /// Other servers that tell us what changed there.
    sources (tenant, id) {
        tenant -> Text,
        id -> Text,
        settings -> Text,
        added_at -> BigInt,
        place -> BigInt,
        heard_at -> Nullable<BigInt>,
        asked_to -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Their subscriptions that tell us.
    feed_subscriptions (tenant, source, reference) {
        tenant -> Text,
        source -> Text,
        reference -> Text,
        status -> Text,
        last_event -> BigInt,
        missing -> Text,
        heard_at -> BigInt,
        heartbeat -> Nullable<BigInt>,
        revision -> BigInt,
    }
}

diesel::table! {
    /// What they told, by resource and event.
    notices (tenant, id) {
        tenant -> Text,
        id -> Text,
        source -> Text,
        place -> BigInt,
        subscription -> Nullable<Text>,
        event -> Nullable<BigInt>,
        part -> Nullable<BigInt>,
        about -> Nullable<Text>,
        source_updated -> Nullable<BigInt>,
        source_version -> Nullable<Text>,
        body -> Binary,
        received_at -> BigInt,
        correlation -> Text,
        state -> Text,
        state_at -> BigInt,
        detail -> Nullable<Text>,
        outcome -> Nullable<Text>,
        tries -> BigInt,
        revision -> BigInt,
        gone -> Bool,
    }
}

diesel::table! {
    /// Which of their resources is which of ours, and the version that came last.
    mirrors (tenant, source, theirs) {
        tenant -> Text,
        source -> Text,
        theirs -> Text,
        ours -> Nullable<Text>,
        source_updated -> Nullable<BigInt>,
        source_version -> Nullable<Text>,
        notice -> Text,
        place -> BigInt,
        awaits -> Nullable<Text>,
        revision -> BigInt,
    }
}

diesel::table! {
    /// What follows from them for releases.
    clinical_facts (tenant, source, resource, kind, subject, team) {
        tenant -> Text,
        source -> Text,
        resource -> Text,
        kind -> Text,
        subject -> Text,
        team -> Text,
        at -> BigInt,
        stands -> Bool,
        changed_at -> BigInt,
    }
}

diesel::table! {
    /// Which processes live. Belongs to no tenant.
    processes (name) {
        name -> Text,
        seen -> BigInt,
    }
}

diesel::table! {
    /// Which process does a job that only one may do. Belongs to no tenant.
    leases (name) {
        name -> Text,
        process -> Text,
        until -> BigInt,
    }
}

diesel::table! {
    /// How far the audit was forwarded to each sink. Belongs to no tenant.
    forwarding (sink) {
        sink -> Text,
        stream -> Text,
        done -> BigInt,
        sending -> Nullable<BigInt>,
    }
}
