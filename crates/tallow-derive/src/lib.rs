//! `#[derive(Relocate)]` for [Tallow](https://docs.rs/tallow)'s defragmentation.
//! Use it by way of `tallow`'s feature `derive`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DataEnum, DeriveInput, Error, Field, Fields, Generics, Ident, Member};
use syn::{Path, Result, parse_quote};

/// Visits each field, of structs and of enums.
///
/// - `#[relocate(skip)]` leaves a field alone: it need not be `Relocate`, and
///   what it owns stays where it is. That is right for data which somebody has
///   the address of, and it is all there is for types without an impl.
/// - A type parameter that occurs in a field which is not skipped gets the bound
///   `Relocate`; others get none. Where clauses are kept. Where another bound is
///   wanted (`T::Item: Relocate`, or none for the key of a map), write the impl
///   by hand.
#[proc_macro_derive(Relocate, attributes(relocate))]
pub fn derive_relocate(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(mut input: DeriveInput) -> Result<TokenStream> {
    // Not to be confused with anything that the program calls so.
    let mover = Ident::new("mover", Span::mixed_site());
    let mut errors = Errors::default();
    errors.no_attribute(&input.attrs, "type");
    let mut visited = Vec::new();
    let body = match &input.data {
        Data::Struct(data) => {
            visited = errors.visited(&data.fields);
            let calls = visited.iter().map(|(member, field)| {
                // `self` is the one of this impl, whoever wrote the field.
                let span = field.ty.span().resolved_at(Span::call_site());
                let place = quote_spanned!(span=> &mut self.#member);
                visit(field, &place, &mover)
            });
            quote!(#(#calls)*)
        }
        Data::Enum(data) => variants(data, &mover, &mut visited, &mut errors),
        Data::Union(data) => {
            errors.add(Error::new(
                data.union_token.span,
                "`Relocate` cannot be derived for a union, which does not say what it holds: \
                 implement `tallow::defrag::Relocate` by hand",
            ));
            TokenStream::new()
        }
    };
    errors.none()?;

    bound(&mut input.generics, &visited);
    let parameter = if visited.is_empty() { quote!(_) } else { mover.to_token_stream() };
    let name = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #generics ::tallow::defrag::Relocate for #name #arguments #conditions {
            fn relocate(&mut self, #parameter: &mut ::tallow::defrag::Mover<'_>) {
                #body
            }
        }
    })
}

/// The match over an enum; nothing when no variant has a field to visit.
fn variants<'a>(
    data: &'a DataEnum,
    mover: &Ident,
    visited: &mut Vec<(Member, &'a Field)>,
    errors: &mut Errors,
) -> TokenStream {
    let mut arms = Vec::new();
    for variant in &data.variants {
        errors.no_attribute(&variant.attrs, "variant");
        let fields = errors.visited(&variant.fields);
        let name = &variant.ident;
        let bindings = fields.iter().enumerate().map(|(i, (_, field))| {
            let span = field.ty.span().resolved_at(Span::mixed_site());
            format_ident!("field_{}", i, span = span)
        });
        let bindings: Vec<_> = bindings.collect();
        let members = fields.iter().map(|(member, _)| member);
        let calls = fields
            .iter()
            .zip(&bindings)
            .map(|((_, field), binding)| visit(field, &binding.to_token_stream(), mover));
        // Braces fit variants of all kinds.
        arms.push(quote!(Self::#name { #(#members: #bindings,)* .. } => { #(#calls)* }));
        visited.extend(fields);
    }
    if visited.is_empty() { TokenStream::new() } else { quote!(match self { #(#arms)* }) }
}

/// The call for a field, where errors about its type belong.
fn visit(field: &Field, place: &TokenStream, mover: &Ident) -> TokenStream {
    let span = field.ty.span().resolved_at(Span::call_site());
    quote_spanned!(span=> ::tallow::defrag::Relocate::relocate(#place, #mover);)
}

/// Adds the bounds of the parameters that occur in visited fields.
fn bound(generics: &mut Generics, visited: &[(Member, &Field)]) {
    let occurs =
        |name: &Ident| visited.iter().any(|(_, field)| mentions(field.ty.to_token_stream(), name));
    let names: Vec<_> = generics.type_params().map(|p| p.ident.clone()).collect();
    for name in names.into_iter().filter(occurs) {
        let conditions = generics.make_where_clause();
        conditions.predicates.push(parse_quote!(#name: ::tallow::defrag::Relocate));
    }
}

/// Whether a type mentions a parameter: its name, not as a part of a path
/// (`module::T`) and not as a lifetime (`'T`).
fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    let mut before = None;
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => !matches!(before.take(), Some(':' | '\'')) && ident == *name,
        TokenTree::Group(group) => {
            before = None;
            mentions(group.stream(), name)
        }
        TokenTree::Punct(punct) => {
            before = Some(punct.as_char());
            false
        }
        TokenTree::Literal(_) => false,
    })
}

/// All that is wrong with the input.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn none(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }

    /// `#[relocate(...)]` means something on fields only.
    fn no_attribute(&mut self, attributes: &[Attribute], place: &str) {
        for attribute in attributes.iter().filter(|a| a.path().is_ident("relocate")) {
            self.add(Error::new_spanned(
                attribute,
                format!(
                    "`#[relocate(...)]` has no meaning on a {place}: put `#[relocate(skip)]` on \
                     the fields that should stay where they are"
                ),
            ));
        }
    }

    /// The fields that are not skipped.
    fn visited<'a>(&mut self, fields: &'a Fields) -> Vec<(Member, &'a Field)> {
        let mut visited: Vec<_> = fields.members().zip(fields).collect();
        visited.retain(|(_, field)| !self.skipped(field));
        visited
    }

    fn skipped(&mut self, field: &Field) -> bool {
        let mut skipped = false;
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("relocate")) {
            if attribute.parse_args::<Path>().is_ok_and(|path| path.is_ident("skip")) {
                skipped = true;
                continue;
            }
            let tokens = match &attribute.meta {
                syn::Meta::List(list) if !list.tokens.is_empty() => list.tokens.clone(),
                _ => attribute.to_token_stream(),
            };
            self.add(Error::new_spanned(
                tokens,
                "unknown attribute: write `#[relocate(skip)]` to leave the field where it is, \
                 or nothing to have it visited",
            ));
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(source: &str) -> String {
        let input = syn::parse_str(source).expect("a type");
        expand(input).expect("an impl").to_string()
    }

    /// The messages, and the source that each of them points at.
    fn complaints(source: &str) -> Vec<(String, Option<String>)> {
        let input = syn::parse_str(source).expect("a type");
        let error = expand(input).expect_err("errors");
        error.into_iter().map(|e| (e.to_string(), e.span().source_text())).collect()
    }

    fn complains(source: &str, place: &str, message: &str) {
        let all = complaints(source);
        let found = |(text, at): &(String, Option<String>)| {
            text.contains(message) && at.as_deref() == Some(place)
        };
        assert!(all.len() == 1 && all.iter().all(found), "{source}: {all:?}");
    }

    #[test]
    fn only_parameters_of_visited_fields_are_bound() {
        let text = expanded(
            "struct S<'T, A: Clone, B, C, D, const N: usize> where B: Copy {
                a: Vec<(A, [u8; N])>, b: fn(other::B) -> &'T u8, #[relocate(skip)] c: C,
                d: <D as Iterator>::Item,
            }",
        );
        for (name, is_bound) in [("A", true), ("B", false), ("C", false), ("D", true)] {
            let bound = format!(" {name} : :: tallow :: defrag :: Relocate");
            assert_eq!(text.contains(&bound), is_bound, "{name}: {text}");
        }
        assert!(text.contains("where B : Copy"), "{text}");
        assert!(text.contains("const N : usize"), "{text}");
        assert!(!text.contains("self . c"), "{text}");
    }

    #[test]
    fn what_has_no_fields_is_not_looked_at() {
        for source in
            ["struct S;", "struct S();", "enum E {}", "enum E { A, B(#[relocate(skip)] u8) }"]
        {
            let text = expanded(source);
            assert!(text.contains("_ : & mut") && !text.contains("match"), "{text}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        complains("union U { a: u8 }", "union", "by hand");
        for (attribute, place) in [
            ("#[relocate(skp)]", "skp"),
            ("#[relocate(skip = true)]", "skip = true"),
            ("#[relocate(skip, deep)]", "skip, deep"),
            ("#[relocate()]", "#[relocate()]"),
            ("#[relocate]", "#[relocate]"),
            ("#[relocate = \"skip\"]", "#[relocate = \"skip\"]"),
        ] {
            complains(&format!("struct S {{ {attribute} a: u8 }}"), place, "#[relocate(skip)]");
            complains(&format!("enum E {{ V({attribute} u8) }}"), place, "#[relocate(skip)]");
        }
        let place = "#[relocate(skip)]";
        complains("#[relocate(skip)] struct S(u8);", place, "on a type");
        complains("enum E { #[relocate(skip)] V(u8) }", place, "on a variant");
        assert_eq!(complaints("struct S(#[relocate(a)] u8, #[relocate(b)] u8);").len(), 2);
    }
}
