//! Links the guest.

fn main() {
    println!(
        "cargo::rustc-link-arg-bins=@{}",
        std::env::var("DEP_NABLA_GUEST_LINK_ARGS").expect("nabla-guest is a dependency")
    );
}
